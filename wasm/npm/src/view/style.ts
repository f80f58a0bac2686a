// The look of the element. Colours follow `color-scheme`; `--attention-…` properties override them.

/** The style sheet inside the element. */
export const STYLE = `
:host { display: block; container-type: inline-size; font: 14px/1.45 system-ui, sans-serif; color: var(--attention-ink, #1b1f27); --ink: var(--attention-ink, #1b1f27); --paper: var(--attention-paper, #fff); --muted: var(--attention-muted, #59616e); --line: var(--attention-line, #d9dce2); --focus: var(--attention-focus, #2457c5); }
:host([data-dark]) { color: var(--attention-ink, #e9ebef); --ink: var(--attention-ink, #e9ebef); --paper: var(--attention-paper, #171a20); --muted: var(--attention-muted, #a3abb8); --line: var(--attention-line, #363c47); --focus: var(--attention-focus, #7fa8ff); }
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--line); border-radius: 8px; padding: 4px 10px; min-height: 32px; cursor: pointer; }
button:hover { border-color: var(--muted); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.heads { display: flex; flex-wrap: wrap; gap: 10px; margin-bottom: 16px; }
.head { display: grid; gap: 4px; justify-items: center; padding: 6px 6px 4px; font-size: 12px; color: var(--muted); border-color: transparent; }
.head[aria-pressed="true"] { border-color: var(--hue); color: var(--ink); font-weight: 600; box-shadow: inset 0 0 0 1px var(--hue); }
.head canvas { display: block; width: 84px; height: 84px; border-radius: 2px; }
.body { display: grid; gap: 20px; grid-template-columns: minmax(0, 1fr); }
@container (min-width: 620px) { .body { grid-template-columns: minmax(0, 3fr) minmax(220px, 2fr); } }
.matrix { position: relative; touch-action: pan-y; cursor: crosshair; border-radius: 4px; overflow: auto; }
.matrix canvas { display: block; }
.axis { color: var(--muted); font-size: 12px; margin: 0 0 4px; }
.reading { min-height: 2.9em; margin: 0 0 8px; }
.reading b { font-variant-numeric: tabular-nums; }
.rows { max-height: 560px; overflow: auto; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
caption { text-align: start; font-weight: 600; padding-bottom: 6px; }
th { font-weight: 400; text-align: start; padding: 2px 10px 2px 0; white-space: nowrap; width: 1%; max-width: 9em; overflow: hidden; text-overflow: ellipsis; }
td { padding: 2px 0; }
td.value { font-variant-numeric: tabular-nums; text-align: end; padding-inline-start: 10px; white-space: nowrap; width: 1%; }
.bar { height: 10px; border-radius: 2px; background: var(--hue); min-width: 1px; }
tr[data-here] th, tr[data-here] td.value { font-weight: 600; }
.foot { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; justify-content: space-between; margin-top: 14px; color: var(--muted); font-size: 12px; }
.foot div { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.foot button { font-size: 13px; color: var(--ink); }
.scale { width: 120px; height: 10px; border-radius: 2px; border: 1px solid var(--line); }
.status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;
