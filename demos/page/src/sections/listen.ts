// An utterance frame by frame, over a cache that keeps the keys and values of the frames before.

import type { AttentionView } from "mha/view";

import type { Utterance } from "../data.js";
import { Bars, colour, find, lines, make, onLook, paper, percent } from "../dom.js";
import { best, softmax } from "../nets/arithmetic.js";
import { FEATURES, type Heard, type Listener, SPEAKERS, type Vowels } from "../nets/vowels.js";

/** Milliseconds between frames while playing. */
const PACE = 220;

/** Starts the part of the page. */
export function listen(vowels: Vowels, utterances: readonly Utterance[]): void {
  const choice = find<HTMLSelectElement>("utterance");
  const slider = find<HTMLInputElement>("frame");
  const play = find<HTMLButtonElement>("play");
  const view = find<AttentionView>("vowel-view");
  const bars = new Bars("speakers", Array.from({ length: SPEAKERS }, (_, i) => `Speaker ${i + 1}`));
  const spread = deviation(utterances);
  let listener: Listener | undefined;
  let utterance: Utterance;
  let heard: Heard[] = [];
  let frame = 0;
  let timer = 0;

  utterances.forEach(({ speaker, frames }, i) => {
    make("option", choice, `Speaker ${speaker + 1} (${frames.length} frames)`).value = String(i);
  });

  const look = (): void => {
    paintSound(find("sound"), utterance.frames, frame, spread);
    paintCurve(find("curve"), heard.slice(0, frame), utterance.frames.length, utterance.speaker);
  };

  /** Goes to a frame. What has been heard is known; what has not is heard one frame after another. */
  const go = (to: number): void => {
    frame = Math.max(1, Math.min(utterance.frames.length, to));
    while (heard.length < frame) {
      heard.push(listener!.hear(utterance.frames[heard.length]!));
    }
    const { logits, scores, frames } = heard[frame - 1]!;
    const probabilities = softmax(logits);
    const answer = best(logits);
    const { speaker } = utterance;
    find("speaker").textContent = String(answer + 1);
    find("heard").textContent = `${percent(probabilities[answer]!)} sure after ${frames} of ${utterance.frames.length} frames`;
    bars.show(probabilities, (i) => (i === speaker ? "right" : i === answer ? "wrong" : undefined));
    view.attention = { scores, heads: vowels.heads, queries: frames };
    slider.value = String(frame);
    slider.setAttribute("aria-valuetext", `frame ${frame}: speaker ${answer + 1}, ${percent(probabilities[answer]!)}`);
    find("frame-of").textContent = `${frame} of ${utterance.frames.length}`;
    look();
  };

  const stop = (): void => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const open = (): void => {
    stop();
    listener?.stop();
    listener = vowels.listen();
    utterance = utterances[Number(choice.value)]!;
    heard = [];
    slider.max = String(utterance.frames.length);
    view.lock(undefined);
    go(utterance.frames.length);
  };

  choice.onchange = open;
  slider.oninput = () => {
    stop();
    go(Number(slider.value));
  };
  play.onclick = () => {
    if (timer !== 0) {
      stop();
      return;
    }
    play.textContent = "Pause";
    go(frame >= utterance.frames.length ? 1 : frame + 1);
    timer = window.setInterval(() => {
      go(frame + 1);
      if (frame === utterance.frames.length) {
        stop();
      }
    }, PACE);
  };
  onLook(look);
  open();
}

/** How far each feature is from its mean, as a rule, and that mean. */
function deviation(utterances: readonly Utterance[]): { mean: number; size: number }[] {
  const frames = utterances.flatMap((utterance) => utterance.frames);
  return Array.from({ length: FEATURES }, (_, i) => {
    const mean = frames.reduce((sum, frame) => sum + frame[i]!, 0) / frames.length;
    const size = Math.sqrt(frames.reduce((sum, frame) => sum + (frame[i]! - mean) ** 2, 0) / frames.length);
    return { mean, size };
  });
}

function paintSound(canvas: HTMLCanvasElement, frames: readonly Float32Array[], heard: number, spread: readonly { mean: number; size: number }[]): void {
  const { context, width, height } = paper(canvas);
  const [w, h] = [width / frames.length, height / FEATURES];
  const [low, high] = [colour("low"), colour("high")];
  frames.forEach((frame, x) => {
    frame.forEach((value, i) => {
      const { mean, size } = spread[i]!;
      const away = (value - mean) / (2.2 * size);
      context.fillStyle = away < 0 ? low : high;
      context.globalAlpha = Math.min(1, Math.abs(away)) * (x < heard ? 1 : 0.12);
      context.fillRect(x * w, i * h, w - 1, h - 1);
    });
  });
  context.globalAlpha = 1;
  if (heard < frames.length) {
    context.fillStyle = colour("ink");
    context.fillRect(heard * w - 1, 0, 2, height);
  }
}

function paintCurve(canvas: HTMLCanvasElement, heard: readonly Heard[], frames: number, right: number): void {
  const { context, width, height } = paper(canvas);
  const [left, bottom, top] = [38, 24, 12];
  const x = (i: number): number => left + ((i + 0.5) * (width - left - 12)) / frames;
  const y = (p: number): number => top + (1 - p) * (height - top - bottom);
  lines(context, left, width, [0, 0.5, 1].map((part) => [y(part), `${100 * part} %`]));
  context.textAlign = "center";
  for (let i = 4; i < frames; i += 5) {
    context.fillText(String(i + 1), x(i), height - 8);
  }
  const curves = heard.map(({ logits }) => softmax(logits));
  const last = heard.at(-1);
  const thought = last === undefined ? right : best(last.logits);
  const order = Array.from({ length: SPEAKERS }, (_, i) => i).sort((a, b) => weight(a) - weight(b));
  function weight(speaker: number): number {
    return speaker === right ? 2 : speaker === thought ? 1 : 0;
  }
  for (const speaker of order) {
    context.strokeStyle = context.fillStyle = colour(["muted", "wrong", "right"][weight(speaker)]!);
    context.globalAlpha = weight(speaker) === 0 ? 0.45 : 1;
    context.lineWidth = weight(speaker) === 0 ? 1 : 2.5;
    context.beginPath();
    curves.forEach((curve, i) => context.lineTo(x(i), y(curve[speaker]!)));
    context.stroke();
    if (weight(speaker) > 0 && curves.length > 0) {
      context.beginPath();
      context.arc(x(curves.length - 1), y(curves.at(-1)![speaker]!), 4, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}
