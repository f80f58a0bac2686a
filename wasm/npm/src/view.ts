// `mha/view`: seeing attention. It needs nothing of the library but its scores, and is not loaded by it.

export { AttentionView, defineAttentionView, type Selection } from "./view/element.js";
export type { Attention } from "./view/attention.js";
export { attentionSvg, type SvgOptions } from "./view/svg.js";
