//! Vectors for texts.

use crate::text::{hash, mix};

/// A vector of length one that depends on the text alone.
pub(crate) fn embed(text: &str, width: usize) -> Vec<f32> {
    let key = hash(text.as_bytes());
    let mut vector: Vec<f32> = (0..width as u64).map(|index| unit(mix(key ^ mix(index)))).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// A number between -1 and 1.
fn unit(bits: u64) -> f32 {
    let sixteen = u16::try_from(bits >> 48).unwrap_or(0);
    f32::from(sixteen) / 32_768.0 - 1.0
}
