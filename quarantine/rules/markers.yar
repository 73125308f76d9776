// Files that say of themselves that they are a test. Spelt with brackets, so that this file is none.

rule eicar
{
    meta:
        verdict = "rejected"
        code = "rules.eicar"
        detail = "It carries the EICAR test pattern, with which scanners are tried."
    strings:
        $a = /X5O!P%@AP\[4\\PZX54\(P\^\)7CC\)7\}\$EICAR[-]STANDARD[-]ANTIVIRUS[-]TEST[-]FILE!\$H\+H\*/
    condition:
        $a
}

rule own_test_marker
{
    meta:
        verdict = "rejected"
        code = "rules.test_marker"
        detail = "It carries the test marker of this program, with which the quarantine is tried."
    strings:
        $a = /NEXUS[-]QUARANTINE[-]TEST[-]MARKER[-]REJECT/
    condition:
        $a
}
