// Colours with a meaning: each head has a hue of its own, everywhere; strength is how much of it covers the paper.

/** The colours of a drawing. */
export interface Colours {
  readonly paper: string;
  readonly ink: string;
  readonly muted: string;
  readonly line: string;
  /** One a head; they begin again after the last. */
  readonly heads: readonly string[];
}

/** On light paper. Every hue has a contrast of at least 4.5 to it. */
export const LIGHT: Colours = {
  paper: "#ffffff",
  ink: "#1b1f27",
  muted: "#59616e",
  line: "#d9dce2",
  heads: ["#2457c5", "#b3460f", "#0f7a4d", "#9a2c93", "#8a6100", "#006f84", "#b3264d", "#5a48c0"],
};

/** On dark paper. */
export const DARK: Colours = {
  paper: "#171a20",
  ink: "#e9ebef",
  muted: "#a3abb8",
  line: "#363c47",
  heads: ["#7fa8ff", "#ff9a63", "#4fd39a", "#ea8be3", "#e0b84a", "#4cc8dd", "#ff8aa6", "#b0a3ff"],
};

/** The hue of a head. */
export function hue(colours: Colours, head: number): string {
  return colours.heads[head % colours.heads.length] ?? colours.ink;
}
