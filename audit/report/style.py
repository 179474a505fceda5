"""The look of the HTML report: readable on paper, on a phone and without colours."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 1rem/1.5 Georgia, 'Times New Roman', serif;
  color: #1a1a1a; background: #fff; overflow-wrap: break-word; font-variant-ligatures: none; }
h1, h2, h3, th, .verdict, nav, svg { font-family: Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; border-top: 2px solid #1b5e8a; padding-top: 0.6rem; margin-top: 2.2rem; }
h3 { font-size: 1.05rem; margin-top: 1.4rem; }
a { color: #1b5e8a; }
p.lead { font-size: 1.1rem; }
p.alarm { font-weight: bold; color: #8a0000; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0.6rem 0 1rem; font-size: 0.9rem; }
caption { text-align: left; font-style: italic; padding: 0.2rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.5rem; border-bottom: 1px solid #c8c8c8; }
th { background: #eef3f6; font-weight: bold; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { font-weight: bold; white-space: nowrap; }
.pass { color: #1d5c1d; } .fail { color: #8a0000; } .none { color: #4a4a4a; }
.fail::before { content: '\\2717\\00a0'; }
.pass::before { content: '\\2713\\00a0'; }
.none::before { content: '\\2013\\00a0'; }
code { font: 0.82rem/1.4 Menlo, Consolas, 'Courier New', monospace; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; margin: 0.5rem 0 1rem; }
figure { margin: 0 0 1rem; break-inside: avoid; }
figcaption { font-style: italic; font-size: 0.9rem; }
nav ol { columns: 2; padding-left: 1.4rem; }
.sign { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 2rem; margin-top: 3rem; }
.sign div { border-top: 1px solid #1a1a1a; padding-top: 0.3rem; font-size: 0.9rem; }
footer { margin-top: 3rem; border-top: 1px solid #c8c8c8; font-size: 0.85rem; }
table.pairs th[scope=row] { width: 40%; }
@media screen and (max-width: 40rem) {
  nav ol { columns: 1; }
  body { padding: 0.7rem; }
  table { font-size: 0.85rem; }
  table.words thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  table.words tr, table.words th, table.words td { display: block; border: 0; width: auto; }
  table.words td::before { content: attr(data-label) ': '; color: #4a4a4a; font-style: italic; }
  table.words tr { border-bottom: 1px solid #c8c8c8; padding-bottom: 0.3rem; }
  svg { min-width: 40rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  h2, h3, caption { break-after: avoid; }
  tr, figure { break-inside: avoid; }
  section.page { break-before: page; }
  nav { display: none; }
}
@page { size: A4; margin: 18mm 16mm; }
"""
"""CSS of the page; no font and no file is fetched."""
