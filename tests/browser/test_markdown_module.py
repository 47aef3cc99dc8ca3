"""Markdown by itself: what Claude writes looks as it is meant, and what would do harm stays words."""

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Watch

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# text: the elements it becomes, without the attributes that all of them have
RENDERED = {
    "one\ntwo\n\nthree": "<p>one<br>two</p><p>three</p>",
    "a **b _c_ d** *e* ~~f~~ `g *h*` i": "<p>a <strong>b <em>c</em> d</strong> <em>e</em> <del>f</del>"
                                         " <code>g *h*</code> i</p>",
    "***both*** and **x*y*z**": "<p><em><strong>both</strong></em> and <strong>x<em>y</em>z</strong></p>",
    "snake_case_stays, 2 * 3 * 4, a*, \\*this\\*, `` ` ``": "<p>snake_case_stays, 2 * 3 * 4, a*, *this*,"
                                                            " <code>`</code></p>",
    "# One\n### Three ##\n###### Six": "<h3>One</h3><h5>Three</h5><h6>Six</h6>",
    "- a\n- b\n  1. c\n  2. d\n- e": "<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li><li>e</li></ul>",
    "3. c\n4) other": '<ol start="3"><li>c</li></ol><ol start="4"><li>other</li></ol>',
    "- a\n\n- b\n\n  more": "<ul><li>a</li><li>b<p>more</p></li></ul>",
    "words\n- item": "<p>words</p><ul><li>item</li></ul>",
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "```js\nlet a = '<b>';\n\n# no\n```\nafter": "<pre><code><span>let</span> a = <span>'&lt;b&gt;'</span>;"
                                                   "\n\n# no</code></pre><p>after</p>",
    "~~~\nnever closed": "<pre><code>never closed</code></pre>",
    "a\n\n---\n***\nb": "<p>a</p><hr><hr><p>b</p>",
    "| a | b |\n|---|--:|\n| 1 | 2 \\| 3 |\n| only |\nafter": (
        "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2 | 3</td></tr>"
        "<tr><td>only</td><td></td></tr></tbody></table></div><p>after</p>"
    ),
    '[a *b*](https://x.example/p?q=1 "t"), https://y.example/z_z. <mailto:a@b.example>': (
        '<p><a href="https://x.example/p?q=1">a <em>b</em></a>, <a href="https://y.example/z_z">'
        "https://y.example/z_z</a>."
        ' <a href="mailto:a@b.example">mailto:a@b.example</a></p>'
    ),
    "![pic](https://x.example/p.png)": '<p><a href="https://x.example/p.png">pic</a></p>',
    "[no](/local) [no](javascript:x) [ ] [x] a[1](2)": "<p>[no](/local) [no](javascript:x) [ ] [x] a[1](2)</p>",
    "नमस्ते **दुनिया** 😀": "<p>नमस्ते <strong>दुनिया</strong> 😀</p>",
    "": "",
}  # fmt: skip

HOSTILE = """\
<script>window.harm = 1</script><img src=x onerror="window.harm = 2"><svg onload="window.harm = 3">

[a](javascript:window.harm=4) [b](JaVaScRiPt:window.harm=5) [c](data:text/html,<script>window.harm=6</script>)
[d](//evil.example/x) [e](vbscript:x) <javascript:window.harm=7> ![f](https://evil.example/p.png "x")
[g](&#106;avascript:x)
[h](https://ok.example/"onmouseover="window.harm=8) `<iframe srcdoc="<script>parent.harm=9</script>">`
[i]( javascript:x )

<style>body{display:none}</style><a href="javascript:window.harm=10">x</a>
<meta http-equiv="refresh" content="0;url=//e.example">

| <b>x</b> | [y](javascript:window.harm=11) |
|---|---|
| <form action=//evil.example> | <base href=//evil.example> |

```"><script>window.harm = 12</script>
<textarea>
```
"""

ENDLESS = ["*" * 20_000, "[" * 20_000, "`" * 9_999 + " " + "`" * 9_998, "*a " * 7_000, "_a" * 9_000, "[a](" * 5_000,
           "> " * 5_000 + "x", "- " * 5_000 + "x", "|" * 5_000 + "\n" + "|-" * 5_000, "<https://" * 2_000,
           "**a*" * 5_000, "  " * 5_000 + "- x\n" * 500, "https://x." * 2_000, "![" * 9_000, "\\" * 20_000]  # fmt: skip
"""Marks that never end: a careless reader takes minutes for each."""

CODE = {
    ("python", "def f(x):  # one\n    return 'a' + x2 - 0x1F"): [
        "keyword:def", "comment:# one", "keyword:return", "string:'a'", "number:0x1F"
    ],
    ("JS", "const a = `x ${b}` // 1\n/* in\ntwo */ 1.5e3"): [
        "keyword:const", "string:`x ${b}`", "comment:// 1", "comment:/* in\ntwo */", "number:1.5e3"
    ],
    ("sql", "SELECT 'it''s' From t -- all"): ["keyword:SELECT", "string:'it''s'", "keyword:From", "comment:-- all"],
    ("html", '<a href="x">1</a><!-- <b> -->'): [
        "keyword:<a", 'string:"x"', "number:1", "keyword:</a", "comment:<!-- <b> -->"
    ],
    ("c", '"never closed\nint x'): ['string:"never closed', "keyword:int"],
    ("brainfuck", "if 1 'a'"): [],
    ("", "if 1 'a'"): [],
    ("constructor", "if 1 'a'"): [],
}  # fmt: skip

_MARKED = """async ([language, text]) => {
    const { highlight } = await import("/static/chat/highlight.js");
    const code = document.createElement("code");
    highlight(text, language, code);
    const marks = [...code.children].map((e) => e.className.replace("code-", "") + ":" + e.textContent);
    return [code.textContent, marks];
}"""

_RENDER = """async (text) => {
    const { render } = await import("/static/markdown.js");
    const div = document.createElement("div");
    div.append(render(text));
    for (const e of div.querySelectorAll("*"))
        for (const { name } of [...e.attributes]) if (!["href", "start"].includes(name)) e.removeAttribute(name);
    return div.innerHTML;
}"""


@pytest.mark.slow
def test_what_claude_writes_is_shown_as_it_is_meant(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    assert {text: tab.evaluate(_RENDER, text) for text in RENDERED} == RENDERED


def test_code_is_marked_and_stays_as_it_is(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    for (language, text), marks in CODE.items():
        assert tab.evaluate(_MARKED, [language, text]) == [text, marks], language


@pytest.mark.slow
def test_hostile_text_stays_text(chat: "Page", watch: Watch) -> None:
    chat.evaluate("addEventListener('securitypolicyviolation', (e) => { window.harm = e.blockedURI })")
    chat.get_by_label("Your message").fill(f"say {HOSTILE}")
    chat.get_by_role("button", name="Send").click()
    chat.locator('article[data-state="ended"]').wait_for()

    found: dict[str, Any] = chat.locator(".answer").evaluate(
        """(e) => ({
            names: [...new Set([...e.querySelectorAll("*:not(.copy-code)")].map((x) => x.localName))].sort(),
            links: [...e.querySelectorAll("a")].map((a) => [a.href, a.rel, a.target]),
            handlers: [...e.querySelectorAll("*")].flatMap((x) => [...x.attributes])
                .filter((a) => a.name.startsWith("on")).length,
        })"""
    )
    assert set(found["names"]) <= {"p", "br", "a", "code", "pre", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert [href for href, *_ in found["links"]] == [
        "https://evil.example/p.png",
        "https://ok.example/%22onmouseover=%22window.harm=8",
    ]
    assert {tuple(rest) for _, *rest in found["links"]} == {("noopener noreferrer nofollow", "_blank")}
    assert found["handlers"] == 0
    for link in chat.locator(".answer :is(p, td, th)").all():
        link.click(position={"x": 2, "y": 2})
    assert chat.evaluate("window.harm") is None
    assert len(chat.context.pages) == 1
    assert watch.console == []


@pytest.mark.slow
def test_marks_that_never_end_take_no_time(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    began = time.monotonic()
    for text in ENDLESS:
        assert tab.evaluate(_RENDER, text) != ""
        for language in ("python", "js", "sql", "html"):
            for endless in (text, text.translate({42: "'", 91: '"', 95: "/*"})):
                assert tab.evaluate(_MARKED, [language, endless])[0] == endless
    assert time.monotonic() - began < 20, "a bound, not a speed: each of them would take minutes if it were quadratic"
