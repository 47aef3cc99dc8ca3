/**
 * Colours for code: comments, strings, numbers and keywords, by one scan over the text. Everything stays a text node,
 * the marked ones inside a <span>. A language that is not known stays plain. Every pattern reads on from where it
 * began and never back, so that the scan takes time in proportion to the text.
 */

const MOST_CHARS = 50_000; // longer code stays plain: an answer is drawn again with every piece
const NUMBER = String.raw`\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*`;
const QUOTED = String.raw`"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;
const SLASHES = String.raw`\/\/.*|\/\*[^]*?(?:\*\/|$)`;

const FAMILIES = {
  braces: family(SLASHES, `${QUOTED}|\`(?:\\\\[^]|[^\`\\\\])*\`?`, `
    abstract any as async await bool boolean break byte case catch char class const constexpr continue debugger default
    defer delete do double else enum export extends extern false final finally float fn for foreach from fun func
    function get go goto if impl implements import in inline instanceof int interface internal is let long loop map
    match mod module move mut namespace new nil null number object of operator override package private protected pub
    public readonly record ref return select self set short signed sizeof static string struct super switch this throw
    throws trait true try type typedef typeof undefined union unsafe unsigned use using val var virtual void volatile
    when where while with yield`),
  hash: family(String.raw`#.*`, String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${QUOTED}`, `
    and as assert async await begin break case class continue def del do done elif else elsif end ensure esac except
    export False fi finally for from function global if import in is lambda local match module next nil None nonlocal
    not or pass raise redo require rescue retry return self set super then True true false try undef unless until when
    while with yield echo exit FROM RUN COPY CMD ENV WORKDIR null`),
  sql: family(String.raw`--.*|\/\*[^]*?(?:\*\/|$)`, String.raw`'(?:''|[^'])*'?|"[^"\n]*"?`, `
    add all alter and as asc begin between by case cast check column commit constraint create cross default delete desc
    distinct drop else end exists false foreign from full group having if in index inner insert into is join key left
    like limit not null offset on or order outer over partition primary references returning right rollback select set
    table then true union unique update using values view when where window with`, true),
  markup: family(String.raw`<!--[^]*?(?:-->|$)`, String.raw`"[^"<>]*"|'[^'<>]*'`, "", false, String.raw`<\/?[A-Za-z][\w:-]*`),
};

const LANGUAGES = new Map(Object.entries({
  braces: "js javascript mjs jsx ts typescript tsx json jsonc java c h cpp c++ cc cs csharp go golang rust rs php swift"
    + " kotlin kt scala dart css scss less proto graphql",
  hash: "python py ruby rb sh bash zsh shell console yaml yml toml ini r perl pl make makefile dockerfile docker conf nginx",
  sql: "sql postgresql postgres mysql sqlite plpgsql",
  markup: "html xml svg vue xhtml",
}).flatMap(([name, all]) => all.split(" ").map((language) => [language, FAMILIES[name]])));

function family(comment, string, keywords, anyCase = false, keyword = "(?!)") {
  return {
    scan: new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<keyword>${keyword})|(?<number>${NUMBER})|(?<word>${WORD})`, "g"),
    keywords: new Set(keywords.trim().split(/\s+/)),
    anyCase,
  };
}

/** Appends the code to `parent`, with the language's tokens in spans. */
export function highlight(text, language, parent) {
  const found = text.length > MOST_CHARS ? undefined : LANGUAGES.get(language.toLowerCase());
  if (!found) return void parent.append(text);
  let plain = 0;
  for (const { 0: token, index, groups } of text.matchAll(found.scan)) {
    const kind = kindOf(groups, found);
    if (!kind || !token) continue;
    if (index > plain) parent.append(text.slice(plain, index));
    const span = document.createElement("span");
    span.className = `code-${kind}`;
    span.append(token);
    parent.append(span);
    plain = index + token.length;
  }
  if (plain < text.length) parent.append(text.slice(plain));
}

function kindOf({ comment, string, keyword, number, word }, { keywords, anyCase }) {
  if (comment !== undefined) return "comment";
  if (string !== undefined) return "string";
  if (number !== undefined) return "number";
  const isKeyword = keyword !== undefined || keywords.has(anyCase ? word.toLowerCase() : word);
  return isKeyword ? "keyword" : "";
}
