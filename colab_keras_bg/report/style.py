"""How the report looks: one style sheet, without anything from elsewhere.

Invariant: each colour is a variable that has a light and a dark value; what
is wide is swiped through, the page itself never is.
"""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#16202b;
--muted:#5d6b7a;--grid:#e3e7ec;--mark:#b3bdc8;--accent:#1769d2;
--line-1:#1769d2;--line-2:#d9730d;--line-3:#8250df;
--good:#14804a;--warn:#a35200;--bad:#c02626;--idle:#9aa5b1;
--warn-page:#fff4e2;--bad-page:#fdecec;--console:#101820;--printed:#dde5ee}
@media (prefers-color-scheme:dark){:root{--page:#0e1318;--card:#171e26;
--ink:#e6ecf2;--muted:#93a1b0;--grid:#28323d;--mark:#4a5866;--accent:#6cb0ff;
--line-1:#6cb0ff;--line-2:#ffa657;--line-3:#c297ff;
--good:#4cc38a;--warn:#f0b35e;--bad:#ff7b72;--idle:#566473;
--warn-page:#33270f;--bad-page:#3a1718;--console:#0a0e12;--printed:#d5dee8}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1280px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:20px;margin:0;overflow-wrap:anywhere}
h2{font-size:16px;margin:32px 0 12px}
h3{font-size:14px;margin:0 0 2px;overflow-wrap:anywhere}
p{margin:4px 0}a{color:var(--accent)}
code,pre,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,
"Liberation Mono",monospace;font-size:13px}
code{overflow-wrap:anywhere}
.muted{color:var(--muted)}.small{font-size:13px}
header{display:flex;flex-wrap:wrap;align-items:center;gap:6px 12px}
.pill{font-weight:650;font-size:13px;padding:2px 12px;border-radius:99px;
color:#fff;background:var(--idle);text-transform:uppercase;
letter-spacing:.04em}
.running{background:#14804a}.done{background:#1769d2}
.interrupted{background:#a35200}.failed{background:#c02626}
.card{background:var(--card);border:1px solid var(--grid);
border-radius:12px;padding:14px 16px}
.tiles{display:grid;gap:12px;margin-top:16px;grid-auto-flow:dense;
grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.tiles .card p{margin:0}
.tiles strong{display:block;font-size:22px;line-height:1.3;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.wide{grid-column:span 2}
.bar{display:flex;height:10px;border-radius:99px;overflow:hidden;
background:var(--grid);margin:8px 0 4px}
.bar i{display:block;height:100%}
.alarm{margin-top:14px;border-radius:12px;padding:12px 16px;
border-left:6px solid var(--warn);background:var(--warn-page);
overflow-wrap:anywhere}
.alarm.bad{border-color:var(--bad);background:var(--bad-page)}
.charts{display:grid;gap:12px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr))}
.charts svg{display:block;width:100%;height:auto;margin-top:6px}
.charts p{display:flex;flex-wrap:wrap;gap:2px 14px}
.key::before{content:"";display:inline-block;width:10px;height:10px;
border-radius:3px;margin-right:6px;background:var(--c)}
.keys{display:flex;flex-wrap:wrap;gap:2px 16px}
.line{position:relative;height:26px;border-radius:6px;background:var(--grid);
overflow:hidden}
.line i{position:absolute;top:0;bottom:0;min-width:1px}
.ends{display:flex;justify-content:space-between;gap:12px}
.swipe{overflow-x:auto;-webkit-overflow-scrolling:touch;
background:linear-gradient(90deg,var(--card) 30%,transparent) 0 0/40px 100%,
linear-gradient(270deg,var(--card) 30%,transparent) 100% 0/40px 100%,
linear-gradient(90deg,var(--mark),transparent) 0 0/10px 100%,
linear-gradient(270deg,var(--mark),transparent) 100% 0/10px 100%;
background-color:var(--card);background-repeat:no-repeat;
background-attachment:local,local,scroll,scroll}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--muted);font-size:13px;text-align:left}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--grid);
vertical-align:top;white-space:nowrap}
.attempts td:nth-child(2),.facts td:last-child{white-space:normal;
overflow-wrap:anywhere;min-width:180px}
tr:last-child td{border-bottom:0}
.facts td:first-child{color:var(--muted)}
.newest{display:flex;flex-direction:column-reverse;overflow:auto;
max-height:70vh;border-radius:12px;background:var(--console)}
pre{background:var(--console);color:var(--printed);margin:0;padding:14px 16px;
border-radius:12px;overflow-x:auto;flex:none;line-height:1.45;
font-size:12.5px;unicode-bidi:isolate}
.b{font-weight:700}.d{opacity:.65}.i{font-style:italic}
.u{text-decoration:underline}
.c-black{color:#7d8b99}.c-red{color:#ff7b72}.c-green{color:#57d38c}
.c-yellow{color:#f2cc60}.c-blue{color:#79b8ff}.c-magenta{color:#d2a8ff}
.c-cyan{color:#56d4dd}.c-white{color:#fff}
footer{margin-top:32px}
@media (max-width:520px){main{padding:14px 12px 32px}.wide{grid-column:auto}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
.tiles .card{padding:10px 12px}.tiles strong{font-size:18px}
.tiles .wide{grid-column:1/-1}pre{font-size:11.5px}}
@media print{.newest{max-height:none}pre{white-space:pre-wrap}}
"""
