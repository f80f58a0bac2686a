//! One item of the test data, drawn with what each head looks at.

use anyhow::Result;
use mha_nets::{best, digits, vowels};

use super::layer::Layer;
use super::models::{Digits, Model, Seen, Vowels};
use crate::draw::{Block, Palette, Picture, Style, bar};

/// The width of a terminal that everything fits into.
const COLUMNS: usize = 80;

/// Characters between two blocks.
const GAP: usize = 2;

/// A digit, what the network takes it for, where each head looks and how each patch looks at each.
pub(crate) fn digits(
    model: &Digits,
    index: usize,
    layer: &mut Layer,
    style: Style,
) -> Result<String> {
    let seen = model.classify(index, layer)?;
    let ink: Vec<f32> = model.image(index).iter().map(|&ink| f32::from(ink) / 16.0).collect();
    let mut page = headline("image", model, index, &seen, style);

    let image = Picture::new(8, ink.clone(), Palette::Ink).enlarge(2, 2).draw(style);
    let names: Vec<_> = (0..digits::CLASSES).map(|digit| digit.to_string()).collect();
    page += &Block::beside(&[image, answers(&seen, &names, style)], GAP);

    let maps = maps(&seen, digits::HEADS, digits::TOKENS);
    page += "\n  where each head looks (all patches' looks together)\n";
    let looks = maps.iter().enumerate().map(|(head, map)| {
        // [looks] = [patch], as a part of the patch that is looked at most
        let looks = whole(&columns(map, digits::TOKENS));
        let lit = ink.iter().enumerate().map(|(pixel, ink)| {
            let patch = pixel / 8 / 2 * digits::SIDE + pixel % 8 / 2;
            // A patch without ink can be looked at too.
            looks[patch] * (0.3 + 0.7 * ink)
        });
        let picture = Picture::new(8, lit.collect(), Palette::Heat).enlarge(2, 2);
        picture.draw(style).titled(&format!("head {head}"), style)
    });
    page += &Block::beside(&looks.collect::<Vec<_>>(), GAP);

    page += "\n  how each patch (row) looks at each patch (column)\n";
    let drawn = maps.iter().enumerate().map(|(head, map)| matrix(head, map, digits::TOKENS, style));
    page += &Block::beside(&drawn.collect::<Vec<_>>(), GAP);
    Ok(page)
}

/// An utterance, who the network takes for the speaker, when each head listens, how each frame looks
/// at each, and what happens without the mask.
pub(crate) fn vowels(
    model: &Vowels,
    index: usize,
    layer: &mut Layer,
    style: Style,
) -> Result<String> {
    let seen = model.classify(index, layer)?;
    let frames = model.frames(index);
    let mut page = headline("utterance", model, index, &seen, style);

    let names: Vec<_> = (1..=vowels::CLASSES).map(|speaker| format!("speaker {speaker}")).collect();
    page += &Block::beside(&[answers(&seen, &names, style)], GAP);

    // Padding is masked: nobody looks at it, and it is not drawn.
    let all = maps(&seen, vowels::HEADS, vowels::LONGEST);
    let maps: Vec<Vec<f32>> = all.iter().map(|map| real(map, frames.len())).collect();
    page += &format!("\n  its {} frames, time to the right\n", frames.len());
    let labels = |lines: &[String]| Block::text(lines);
    let mut margin = vec!["12 features".to_string()];
    margin.resize(vowels::FEATURES / 2, String::new());
    let strip = Picture::new(frames.len(), features(model, frames), Palette::Diverging);
    page += &Block::beside(&[labels(&margin), strip.enlarge(2, 1).draw(style)], GAP);
    page += "\n  when each head listens (all frames' looks together)\n";
    for (head, map) in maps.iter().enumerate() {
        let strip = Picture::new(frames.len(), whole(&columns(map, frames.len())), Palette::Heat);
        let margin = labels(&[format!("head {head}     ")]);
        page += &Block::beside(&[margin, strip.enlarge(2, 2).draw(style)], GAP);
    }

    page += "\n  how each frame (row) looks at each frame (column)\n";
    let drawn = maps.iter().enumerate().map(|(head, map)| matrix(head, map, frames.len(), style));
    let mut drawn = drawn.collect::<Vec<_>>();
    let fit = (COLUMNS / (drawn[0].width() + GAP)).max(1);
    while !drawn.is_empty() {
        let rest = drawn.split_off(fit.min(drawn.len()));
        page += &Block::beside(&drawn, GAP);
        drawn = rest;
    }

    if let Some(unmasked) = model.unmasked() {
        page += "\n";
        page += &without_mask(unmasked, index, frames.len(), layer)?;
    }
    Ok(page)
}

/// What the network says where nobody tells it which frames are real.
fn without_mask(model: &Vowels, index: usize, real: usize, layer: &mut Layer) -> Result<String> {
    let seen = model.classify(index, layer)?;
    let queries = (vowels::HEADS * vowels::LONGEST) as f32;
    let rows = seen.scores.chunks(vowels::LONGEST);
    let wasted: f32 = rows.map(|row| row[real..].iter().sum::<f32>()).sum();
    Ok(format!(
        "  without the padding mask {:.0} % of all looks go to {} frames that nobody spoke,\n  \
           and the answer is speaker {}\n",
        100.0 * wasted / queries,
        vowels::LONGEST - real,
        best(&seen.logits) + 1
    ))
}

fn headline(what: &str, model: &dyn Model, index: usize, seen: &Seen, style: Style) -> String {
    let (label, answer) = (model.label(index), best(&seen.logits));
    // Speakers are counted from 1.
    let first = usize::from(model.name() == "vowels");
    let verdict = if label == answer { "right" } else { "wrong" };
    let text = format!(
        "test {what} {index}: it is {}, the network says {}: {verdict}",
        label + first,
        answer + first
    );
    format!("\n  {}\n\n", style.bold(&text))
}

/// A bar for each class.
fn answers(seen: &Seen, names: &[String], style: Style) -> Block {
    let lines = names.iter().zip(seen.probabilities()).map(|(name, probability)| {
        format!("{name} {} {:5.1} %", bar(probability, 30, style), 100.0 * probability)
    });
    Block::text(&lines.collect::<Vec<_>>())
}

/// The scores of each head, `[queries, keys]`.
fn maps(seen: &Seen, heads: usize, keys: usize) -> Vec<Vec<f32>> {
    let one = (seen.scores.len() / heads).max(keys);
    seen.scores.chunks(one).map(<[f32]>::to_vec).collect()
}

/// The first `real` columns of a map.
fn real(map: &[f32], real: usize) -> Vec<f32> {
    map.chunks(vowels::LONGEST).flat_map(|row| &row[..real]).copied().collect()
}

/// The sum of each column.
fn columns(map: &[f32], keys: usize) -> Vec<f32> {
    let mut sums = vec![0.0; keys];
    for row in map.chunks(keys) {
        sums.iter_mut().zip(row).for_each(|(sum, score)| *sum += score);
    }
    sums
}

/// Each value as a part of the largest.
fn whole(values: &[f32]) -> Vec<f32> {
    let largest = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    values.iter().map(|value| value / largest).collect()
}

/// How each query looks at each key, as a part of the strongest look.
fn matrix(head: usize, map: &[f32], keys: usize, style: Style) -> Block {
    let strongest = map.iter().copied().fold(0.0, f32::max);
    let title = format!("head {head}: to {:.0} %", 100.0 * strongest);
    Picture::new(keys, whole(map), Palette::Heat).draw(style).titled(&title, style)
}

/// The features of each frame, `[features, frames]`, from two deviations below a feature's mean over
/// all test data to two above.
fn features(model: &Vowels, frames: &[vowels::Frame]) -> Vec<f32> {
    let mut picture = Vec::new();
    for feature in 0..vowels::FEATURES {
        let all = || model.all_frames().map(|frame| frame[feature]);
        let count = all().count() as f32;
        let mean = all().sum::<f32>() / count;
        let deviation = (all().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt();
        picture
            .extend(frames.iter().map(|frame| 0.5 + (frame[feature] - mean) / (4.0 * deviation)));
    }
    picture
}
