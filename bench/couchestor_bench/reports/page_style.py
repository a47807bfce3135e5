"""The style sheet of report pages: one column of cards, light or dark as the reader has it."""

from __future__ import annotations

from typing import Final

CSS: Final = """
:root{--ink:#1b2330;--soft:#5d6878;--rule:#e3e7ed;--paper:#f5f7fa;--card:#fff;--warn:#8a5300;
--warn-paper:#fff6e5;--warn-rule:#f2d9a8;--good:#11734b;--bad:#b3261e;
--t0:#2563eb;--t1:#e8590c;--t2:#0f9d8a;--t3:#8b3fd9;--t4:#d6336c;--t5:#a07900;--t6:#0b87c9;
--t7:#6b7280}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b4;--rule:#2b3442;
--paper:#12161d;--card:#1a202a;--warn:#f5c469;--warn-paper:#2c2415;--warn-rule:#574520;
--good:#5fd3a0;--bad:#ff8a80;--t0:#6ea0ff;--t1:#ff9454;--t2:#3fd0bd;--t3:#c08bff;--t4:#ff7fab;
--t5:#e0b93a;--t6:#55bdf5;--t7:#a3acb9}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:26px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:16px;margin:0 0 2px}
p{margin:0 0 8px}
.sub{color:var(--soft);margin-bottom:18px}
.note{color:var(--soft);font-size:13px;margin-bottom:6px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));gap:16px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;
padding:16px 18px;margin-bottom:16px;overflow-x:auto}
.cards .card{margin-bottom:0;display:flex;flex-direction:column}
.cards .card svg{margin-top:auto}
.cards{margin-bottom:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-bottom:16px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.25;font-weight:650;letter-spacing:-.01em}
.tile b small{font-size:14px;font-weight:500;color:var(--soft);margin-left:3px}
.tile span{color:var(--soft);font-size:13px}
.verdicts{background:var(--warn-paper);border:1px solid var(--warn-rule);border-radius:10px;
padding:12px 18px 12px 34px;margin:0 0 16px;color:var(--warn)}
.verdicts li+li{margin-top:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:550;font-size:13px}
th:first-child,td:first-child{text-align:left;padding-left:0}
td:last-child,th:last-child{padding-right:0}
tr:last-child td{border-bottom:0}
th.word,td.word{text-align:left}
table.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}
table.facts td:first-child{color:var(--soft);width:34%;white-space:nowrap}
.better{color:var(--good)}.worse{color:var(--bad)}.unclear{color:var(--soft)}
svg{display:block;width:100%;max-width:860px;height:auto;overflow:visible}
svg text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:var(--rule);stroke-width:1}.faint{opacity:.55}.axis{stroke:var(--soft);opacity:.6}
.shade{fill:var(--soft);opacity:.09}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke:var(--tone)}
.dashed{stroke-dasharray:5 4}
.area{fill:var(--tone);opacity:.1}
.dot circle{fill:var(--tone)}.dot .reach{fill:transparent}
.bar{fill:var(--tone)}
svg .bar-name{text-anchor:end;fill:var(--ink)}svg .bar-value{fill:var(--soft)}
.legend{margin:2px 0 4px;font-size:13px;color:var(--soft)}
.key{display:inline-block;margin-right:16px}
.swatch{display:inline-block;width:18px;height:0;border-top:3px solid var(--tone);
margin-right:6px;vertical-align:middle}
.swatch.dashed{border-top-style:dashed}
.tone0{--tone:var(--t0)}.tone1{--tone:var(--t1)}.tone2{--tone:var(--t2)}.tone3{--tone:var(--t3)}
.tone4{--tone:var(--t4)}.tone5{--tone:var(--t5)}.tone6{--tone:var(--t6)}.tone7{--tone:var(--t7)}
footer{color:var(--soft);font-size:13px;margin-top:20px}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
"""
