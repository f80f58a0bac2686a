//! What the demos need on the desk: their data and models read from `demos/data` and
//! `demos/models`, and the models written as the flat files that `mha-nets` carries into firmware.
//!
//! A chip has no parser for safetensors, so the weights go there as plain little-endian floats in
//! the order in which the network meets them. [`write_weights`] makes those files, and says when they
//! no longer agree with the models.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The models there are.
pub const MODELS: [&str; 2] = ["digits", "vowels"];

/// The tensors of a network in the order of the flat file. Those that a model lacks are left out.
const ORDER: [&str; 22] = [
    "input.mean",
    "input.deviation",
    "embed.weight",
    "embed.bias",
    "position",
    "block0.norm1.gain",
    "block0.attention.wq",
    "block0.attention.wk",
    "block0.attention.wv",
    "block0.attention.wo",
    "block0.attention.bq",
    "block0.attention.bk",
    "block0.attention.bv",
    "block0.attention.bo",
    "block0.norm2.gain",
    "block0.feed1.weight",
    "block0.feed1.bias",
    "block0.feed2.weight",
    "block0.feed2.bias",
    "norm.gain",
    "classifier.weight",
    "classifier.bias",
];

/// A tensor file, read.
pub struct File {
    bytes: Vec<u8>,
    path: PathBuf,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { bytes, path: path.to_owned() })
    }

    /// The names of its tensors.
    ///
    /// # Errors
    /// If it is no safetensors file.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(self.parse()?.names().into_iter().map(String::from).collect())
    }

    /// The elements of an f32 tensor.
    ///
    /// # Errors
    /// If there is none of that name and type.
    pub fn f32s(&self, name: &str) -> Result<Vec<f32>> {
        let bytes = self.tensor(name, Dtype::F32)?;
        Ok(bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// The elements of a u8 tensor.
    ///
    /// # Errors
    /// If there is none of that name and type.
    pub fn u8s(&self, name: &str) -> Result<Vec<u8>> {
        self.tensor(name, Dtype::U8)
    }

    /// The elements of an i64 tensor of indices.
    ///
    /// # Errors
    /// If there is none of that name and type, or one is negative.
    pub fn indices(&self, name: &str) -> Result<Vec<usize>> {
        let bytes = self.tensor(name, Dtype::I64)?;
        let indices = bytes.as_chunks().0.iter().map(|&word| i64::from_le_bytes(word).try_into());
        Ok(indices.collect::<Result<_, _>>()?)
    }

    fn tensor(&self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let path = self.path.display();
        let tensors = self.parse()?;
        let view = tensors.tensor(name).with_context(|| format!("{path}: tensor {name}"))?;
        ensure!(view.dtype() == dtype, "{path}: {name} is {:?}, not {dtype:?}", view.dtype());
        Ok(view.data().to_vec())
    }

    fn parse(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .with_context(|| format!("{}: not a safetensors file", self.path.display()))
    }
}

/// An image with its label.
#[derive(Clone, Debug)]
pub struct Digit {
    /// 8×8 blocks, 0..=16.
    pub image: [u8; 64],
    /// The digit.
    pub label: u8,
    /// Whether it took no part in training.
    pub held_out: bool,
}

/// An utterance with its speaker.
#[derive(Clone, Debug)]
pub struct Vowel {
    /// The frames, zeros after the last real one.
    pub frames: [[f32; 12]; 29],
    /// How many frames are real.
    pub len: usize,
    /// The speaker.
    pub label: u8,
    /// Whether it took no part in training.
    pub held_out: bool,
}

/// All images, in the order of the file; `demos` is the folder of that name.
///
/// # Errors
/// If the file cannot be read or has other tensors.
pub fn digits(demos: &Path) -> Result<Vec<Digit>> {
    let file = File::open(&demos.join("data/digits.safetensors"))?;
    let (images, labels) = (file.u8s("images")?, file.u8s("labels")?);
    let split = file.u8s("split")?;
    let (images, rest) = images.as_chunks::<64>();
    ensure!(rest.is_empty() && images.len() == labels.len() && labels.len() == split.len());
    let items = images.iter().zip(labels).zip(split);
    Ok(items.map(|((&image, label), split)| Digit { image, label, held_out: split == 1 }).collect())
}

/// All utterances, in the order of the file; `demos` is the folder of that name.
///
/// # Errors
/// If the file cannot be read or has other tensors.
pub fn vowels(demos: &Path) -> Result<Vec<Vowel>> {
    let file = File::open(&demos.join("data/vowels.safetensors"))?;
    let (frames, lengths) = (file.f32s("frames")?, file.u8s("lengths")?);
    let (labels, split) = (file.u8s("labels")?, file.u8s("split")?);
    let (frames, _) = frames.as_chunks::<12>();
    let (utterances, rest) = frames.as_chunks::<29>();
    ensure!(rest.is_empty() && utterances.len() == labels.len());
    ensure!(labels.len() == split.len() && split.len() == lengths.len());
    let items = utterances.iter().zip(lengths).zip(labels.iter().zip(split));
    Ok(items
        .map(|((&frames, len), (&label, split))| Vowel {
            frames,
            len: len.into(),
            label,
            held_out: split == 1,
        })
        .collect())
}

/// The weights of a model as one flat slice, as `from_flat` of `mha-nets` takes it.
///
/// # Errors
/// If the model cannot be read or has tensors that the network does not know.
pub fn flat_weights(demos: &Path, model: &str) -> Result<Vec<f32>> {
    let file = File::open(&demos.join(format!("models/{model}.safetensors")))?;
    let names = file.names()?;
    if let Some(unknown) = names.iter().find(|name| !ORDER.contains(&name.as_str())) {
        bail!("{model}: tensor {unknown} is not part of the network");
    }
    let mut flat = Vec::new();
    for name in ORDER.iter().filter(|name| names.iter().any(|have| have == **name)) {
        flat.extend(file.f32s(name)?);
    }
    Ok(flat)
}

/// Images as firmware reads them: for each its label and its blocks, a byte each.
#[must_use]
pub fn image_bytes(images: &[Digit]) -> Vec<u8> {
    let bytes = |image: &Digit| [&[image.label][..], &image.image].concat();
    images.iter().flat_map(bytes).collect()
}

/// Utterances as firmware reads them: for each its speaker and the number of its frames as 32-bit words,
/// then the frames that are real, all little-endian.
#[must_use]
pub fn utterance_bytes(utterances: &[Vowel]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for vowel in utterances {
        let frames = vowel.frames.get(..vowel.len).unwrap_or(&vowel.frames);
        bytes.extend(u32::from(vowel.label).to_le_bytes());
        bytes.extend((frames.len() as u32).to_le_bytes());
        bytes.extend(frames.as_flattened().iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes
}

/// Items of each class that firmware has in flash.
const IN_FLASH: usize = 2;

/// The first items of the test split of each class.
fn first_of_each<T: Clone>(items: &[T], class: impl Fn(&T) -> (u8, bool)) -> Vec<T> {
    let mut found = [0; 256];
    let chosen = items.iter().filter(|item| {
        let (label, held_out) = class(item);
        let found = &mut found[usize::from(label)];
        *found += usize::from(held_out);
        held_out && *found <= IN_FLASH
    });
    chosen.cloned().collect()
}

/// Writes what firmware has in flash, `nets/src/weights/*.bin` and `firmware/items/*.bin`, where it
/// differs from models and data, or with `check` only looks. Returns the files that differed.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_weights(demos: &Path, check: bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for model in MODELS {
        let bytes = flat_weights(demos, model)?.into_iter().flat_map(f32::to_le_bytes).collect();
        files.push((format!("nets/src/weights/{model}.bin"), bytes));
    }
    let images = first_of_each(&digits(demos)?, |image| (image.label, image.held_out));
    files.push(("firmware/items/images.bin".into(), image_bytes(&images)));
    let utterances = first_of_each(&vowels(demos)?, |vowel| (vowel.label, vowel.held_out));
    files.push(("firmware/items/utterances.bin".into(), utterance_bytes(&utterances)));

    let mut changed = Vec::new();
    for (name, bytes) in files {
        let path = demos.join(name);
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            continue;
        }
        if !check {
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
        changed.push(path);
    }
    Ok(changed)
}

/// A tensor to be written: its name, its shape, its elements.
pub type Tensor<'a> = (&'a str, Vec<usize>, &'a [f32]);

/// Writes a model: f32 tensors, and what it says of itself as the metadata entry `network`.
///
/// # Errors
/// If a tensor's shape is not that of its elements, or the file cannot be written.
pub fn write_model(path: &Path, about: &str, tensors: &[Tensor<'_>]) -> Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let data: Vec<Vec<u8>> = tensors.iter().map(|tensor| bytes(tensor.2)).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data);
        Ok((*name, view.with_context(|| (*name).to_string())?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let metadata = [("network".to_string(), about.to_string())].into_iter().collect();
    let file = safetensors::serialize(views, Some(metadata))?;
    fs::write(path, file).with_context(|| format!("writing {}", path.display()))
}
