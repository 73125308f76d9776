// Code for web servers and browsers where a document was promised.

rule php_web_shell
{
    meta:
        verdict = "rejected"
        code = "rules.web_shell"
        detail = "Server code (PHP) that runs whatever a visitor sends."
    strings:
        $php = /<\?(php|=)/ nocase
        $run = /\b(eval|assert|system|passthru|shell_exec|popen|proc_open|create_function)\s{0,4}\(\s{0,4}@?(\$_(GET|POST|REQUEST|COOKIE|SERVER)|base64_decode\s{0,2}\(|gzinflate\s{0,2}\(|str_rot13\s{0,2}\()/ nocase
    condition:
        all of them
}

rule asp_web_shell
{
    meta:
        verdict = "rejected"
        code = "rules.web_shell"
        detail = "Server code (ASP, ASP.NET or JSP) that runs whatever a visitor sends."
    strings:
        $asp = /<%\s{0,8}(eval|execute|executeglobal)[\s(]{1,4}request/ nocase
        $net = /<%@\s{0,8}(page|webhandler)\s/ nocase
        $net_run = /(Process\.Start\s{0,2}\(|eval\s{0,2}\(\s{0,2}Request)/
        $jsp = /Runtime\.getRuntime\(\)\.exec\s{0,2}\(\s{0,4}request\.getParameter/
    condition:
        $asp or ($net and $net_run) or $jsp
}

rule code_in_picture
{
    meta:
        verdict = "rejected"
        code = "rules.code_in_picture"
        detail = "A picture that carries server code."
    strings:
        $php = /<\?php\s/ nocase
        $asp = /<%@\s{0,4}page\s/ nocase
    condition:
        (uint16be(0) == 0xFFD8 or uint32be(0) == 0x89504E47 or uint32be(0) == 0x47494638
            or uint16be(0) == 0x424D or uint32be(0) == 0x52494646) and any of them
}

rule page_in_picture
{
    meta:
        verdict = "suspicious"
        code = "rules.page_in_picture"
        detail = "A picture that is a web page or a script as well."
    strings:
        $script = /<script[\s>]/ nocase
        $html = /<html[\s>]/ nocase
        $comment = /^GIF8[79]a(\/\*|=)/
    condition:
        (uint16be(0) == 0xFFD8 or uint32be(0) == 0x89504E47 or uint32be(0) == 0x47494638
            or uint16be(0) == 0x424D or uint32be(0) == 0x52494646)
        and ($script or $html or $comment at 0)
}

rule smuggled_download
{
    meta:
        verdict = "suspicious"
        code = "rules.smuggled_download"
        detail = "A web page that carries a file inside its script and saves it when opened."
    strings:
        $tag = /<script[\s>]/ nocase
        $decode = "atob("
        $blob = /new\s{1,3}Blob\s{0,2}\(/
        $save = /(\.download\s{0,3}=|setAttribute\(\s{0,3}["']download["']|msSaveOrOpenBlob|msSaveBlob)/
    condition:
        $tag and $decode and $blob and $save
}

rule page_that_runs_vbscript
{
    meta:
        verdict = "suspicious"
        code = "rules.vbscript_page"
        detail = "A web page with a script for the script host of Windows."
    strings:
        $a = /<script[^>]{0,80}(language|type)\s{0,2}=\s{0,2}["']?(text\/)?(vbscript|jscript\.encode|vbs)/ nocase
    condition:
        $a
}
