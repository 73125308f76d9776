// Things that start programs when somebody opens them, and the words with which scripts fetch more.

rule windows_shortcut
{
    meta:
        verdict = "rejected"
        code = "rules.shortcut"
        detail = "A Windows shortcut (LNK): opening it runs a command of the sender's choice."
    strings:
        $head = { 4C 00 00 00 01 14 02 00 00 00 00 00 C0 00 00 00 00 00 00 46 }
    condition:
        $head at 0
}

rule html_application
{
    meta:
        verdict = "rejected"
        code = "rules.html_application"
        detail = "An HTML application (HTA): opening it runs its script with the rights of a program."
    strings:
        $tag = /<hta:application[\s\/>]/ nocase
    condition:
        $tag
}

rule autorun
{
    meta:
        verdict = "rejected"
        code = "rules.autorun"
        detail = "An autorun file: it names a program to start when a disk is plugged in."
    strings:
        $head = /^(\xEF\xBB\xBF)?\s{0,20}(;[^\r\n]{0,200}\r?\n){0,5}\[autorun\]/ nocase
        $open = /(open|shellexecute|shell\\[a-z]{1,20}\\command)\s{0,5}=/ nocase
    condition:
        filesize < 64KB and $head in (0..1200) and $open
}

rule folder_command
{
    meta:
        verdict = "suspicious"
        code = "rules.shell_command_file"
        detail = "A file of the Windows shell that reaches for another host when its folder is shown."
    strings:
        $scf = /\[shell\]\s{1,10}command=/ nocase
        $url = "[InternetShortcut]" nocase
        $icon = /iconfile\s{0,3}=\s{0,3}(\\\\|file:\/\/)/ nocase
        $target = /url\s{0,3}=\s{0,3}(file:|\\\\|javascript:)/ nocase
    condition:
        filesize < 64KB and (($scf in (0..256) and $icon) or ($url in (0..256) and ($icon or $target)))
}

rule setting_content
{
    meta:
        verdict = "rejected"
        code = "rules.setting_content"
        detail = "A Windows settings shortcut: opening it runs a command of the sender's choice."
    strings:
        $root = "<PCSettings>" nocase
        $link = "<DeepLink>" nocase
    condition:
        filesize < 1MB and all of them
}

rule web_query
{
    meta:
        verdict = "suspicious"
        code = "rules.web_query"
        detail = "A web query (IQY): a spreadsheet program fetches and calculates what a host answers."
    strings:
        $head = /^(\xEF\xBB\xBF)?WEB\r?\n1\r?\n(https?|ftp|file):/ nocase
    condition:
        filesize < 64KB and $head at 0
}

rule script_that_runs_commands
{
    meta:
        verdict = "rejected"
        code = "rules.script_dropper"
        detail = "A script that starts the command line or fetches a program and runs it."
    strings:
        $shell = /CreateObject\s{0,3}\(\s{0,3}["']WScript\.Shell["']/ nocase
        $active = /new\s{1,3}ActiveXObject\s{0,3}\(\s{0,3}["'](WScript\.Shell|Shell\.Application)["']/ nocase
        $run = /\.(run|exec|shellexecute)\b/ nocase
        $what = /(powershell|cmd(\.exe)?\s{0,3}\/c|mshta|rundll32|regsvr32|certutil|bitsadmin|https?:\/\/)/ nocase
    condition:
        filesize < 20MB and ($shell or $active) and $run and $what
}

rule encoded_command
{
    meta:
        verdict = "rejected"
        code = "rules.encoded_command"
        detail = "A PowerShell command that is encoded so that nobody can read it."
    strings:
        $a = /powershell(\.exe)?["']?\s[^\r\n]{0,200}-e(nc|ncodedcommand)?\s{1,4}["']?[A-Za-z0-9+\/]{60}/ nocase
    condition:
        $a
}

rule download_and_run
{
    meta:
        verdict = "suspicious"
        code = "rules.download_and_run"
        detail = "A command line that fetches something from a host and runs it."
    strings:
        $cradle = /(iex|invoke-expression)[\s(&]{1,8}[^\r\n]{0,80}(downloadstring|invoke-webrequest|iwr)\b/ nocase
        $binary = /\b(mshta|certutil|bitsadmin|regsvr32)(\.exe)?["']?\s{1,4}[^\r\n]{0,120}https?:\/\// nocase
    condition:
        any of them
}

rule program
{
    meta:
        verdict = "suspicious"
        code = "rules.program"
        detail = "A program for Windows, Linux, macOS or Java."
    condition:
        (uint16(0) == 0x5A4D and uint32(0x3C) < filesize and uint32(uint32(0x3C)) == 0x00004550)
        or uint32(0) == 0x464C457F
        or (uint32(0) == 0xFEEDFACF or uint32(0) == 0xFEEDFACE)
        or (uint32be(0) == 0xCAFEBABE and uint16be(6) >= 0x2D and uint16be(6) < 0x80)
}
