// Files that are two things at once, so that one program checks the first and another opens the second.

rule picture_and_archive
{
    meta:
        verdict = "suspicious"
        code = "rules.picture_and_archive"
        detail = "A picture that is an archive or a program package as well."
    strings:
        $local = { 50 4B 03 04 }
    condition:
        (uint16be(0) == 0xFFD8 or uint32be(0) == 0x89504E47 or uint32be(0) == 0x47494638
            or uint16be(0) == 0x424D)
        and filesize > 100 and uint32be(filesize - 22) == 0x504B0506 and $local
}

rule document_and_archive
{
    meta:
        verdict = "suspicious"
        code = "rules.document_and_archive"
        detail = "A PDF with an archive behind its end."
    strings:
        $local = { 50 4B 03 04 }
    condition:
        uint32be(0) == 0x25504446
        and filesize > 100 and uint32be(filesize - 22) == 0x504B0506 and $local
}

rule document_behind_something
{
    meta:
        verdict = "suspicious"
        code = "rules.disguised_pdf"
        detail = "A PDF that begins as a picture, a page, a script or a program."
    strings:
        $pdf = "%PDF-1."
        $end = "startxref"
        $page = /^\s{0,10}<(!doctype|html|script|svg)/ nocase
        $script = /^#![ \/]/
    condition:
        $pdf in (1..1024) and $end
        and (uint16be(0) == 0xFFD8 or uint32be(0) == 0x89504E47 or uint32be(0) == 0x47494638
            or uint16be(0) == 0x424D or uint16be(0) == 0x4D5A or $page at 0 or $script at 0)
}
