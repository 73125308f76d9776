// Idioms of exploits in Office, RTF and PDF files that no honest program writes.

rule diagnostic_tool_link
{
    meta:
        verdict = "rejected"
        code = "rules.diagnostic_link"
        detail = "It calls the Windows support tool with a command inside (CVE-2022-30190)."
    strings:
        $scheme = "ms-msdt:" nocase ascii wide
        $argument = /IT_(Re)?BrowseForFile/ nocase ascii wide
    condition:
        all of them
}

rule mhtml_control_link
{
    meta:
        verdict = "rejected"
        code = "rules.mhtml_link"
        detail = "It loads a control from a host by way of an mhtml address (CVE-2021-40444)."
    strings:
        $a = /mhtml:https?:[^"<>\s]{4,400}!x-usc:/ nocase
    condition:
        $a
}

rule rtf_equation_exploit
{
    meta:
        verdict = "rejected"
        code = "rules.equation_exploit"
        detail = "A text document whose embedded equation is opened by itself (CVE-2017-11882)."
    strings:
        $rtf = /^\{\\rt/
        $class = /objclass\s{1,4}equation\.[23]/ nocase
        $class_hex = "4571756174696f6e2e3" nocase
        $update = "\\objupdate" nocase
    condition:
        $rtf at 0 and $update and ($class or $class_hex)
}

rule rtf_link_exploit
{
    meta:
        verdict = "rejected"
        code = "rules.rtf_link_exploit"
        detail = "A text document whose embedded link fetches from a host when opened (CVE-2017-0199)."
    strings:
        $rtf = /^\{\\rt/
        $class = "4f4c45324c696e6b" nocase
        $address = "680074007400700" nocase
    condition:
        $rtf at 0 and all of them
}

rule rtf_disguised
{
    meta:
        verdict = "suspicious"
        code = "rules.rtf_disguised"
        detail = "A text document with a damaged head, as made to get past scanners."
    strings:
        $rtf = /^\{\\rt[^f]/
        $object = /\\obj(data|ocx|emb|autlink|update)/
    condition:
        $rtf at 0 and $object
}

rule dde_command
{
    meta:
        verdict = "rejected"
        code = "rules.dde_command"
        detail = "A data link (DDE) that starts the command line."
    strings:
        $service = /ddeService\s{0,3}=\s{0,3}["'](cmd|powershell|mshta|rundll32|regsvr32|msexcel)/ nocase
        $field = /\bDDE(AUTO)?\s{1,8}["']?[^"\r\n<]{0,120}\\(cmd|powershell|mshta|rundll32|regsvr32)(\.exe)?\b/ nocase
    condition:
        any of them
}

rule pdf_script_exploit
{
    meta:
        verdict = "rejected"
        code = "rules.pdf_exploit"
        detail = "A PDF whose script holds machine code or opens an attached program."
    strings:
        $pdf = "%PDF-"
        $sled = /unescape\s{0,3}\\?\(\s{0,3}["']%u(9090|0c0c|4141)/ nocase
        $printf = /util\.printf\s{0,3}\\?\(\s{0,3}["']%45000/
        $launch = /exportDataObject\s{0,3}\\?\([^)]{0,200}nLaunch\s{0,3}:\s{0,3}2/
        $player = "media.newPlayer(null)"
    condition:
        $pdf in (0..1024) and any of ($sled, $printf, $launch, $player)
}

rule hidden_program
{
    meta:
        verdict = "rejected"
        code = "rules.hidden_program"
        detail = "A program for Windows hidden inside a picture, a PDF or a text document."
    strings:
        $dos = "This program cannot be run in DOS mode"
        $dos_hex = "546869732070726f6772616d2063616e6e6f742062652072756e20696e20444f53206d6f6465" nocase
        $rtf = /^\{\\rt/
    condition:
        ($dos and (uint32be(0) == 0x25504446 or uint16be(0) == 0xFFD8 or uint32be(0) == 0x89504E47
            or uint32be(0) == 0x47494638 or uint32be(0) == 0xD0CF11E0))
        or ($rtf at 0 and $dos_hex)
}
