//! MDI-QKD with quantum memories at the relay: Panayi, Razavi, Ma, Luetkenhaus, NJP 16 043005 (2014),
//! arXiv:1309.3406; Abruzzo, Kampermann, Bruss, PRA 89 012301 (2014), arXiv:1306.3095.
//!
//! **Sifting.** Each side loads its memory until a photon is heralded there; when both are loaded the relay reads them
//! out into a Bell measurement. Pairs prepared in the same basis are kept.
//!
//! ```text
//! <T> = 1/PA + 1/PB - 1/(PA + PB - PA PB)      attempts until both are loaded; (3 - 2 P0)/(P0 (2 - P0)) if alike
//! r   = Rs/<T> P_BSM [1 - h(e_X) - f h(e_Z)]   single photons: every loaded pair is one
//! e_X = (1 - (1 - 2 e_d) D) / 2                dephasing of the memory that waits
//! D   = P0/(2 - P0) [1 + 2 (1-P0) x / (1 - (1-P0) x)],  x = e^(-1/(Rs T2))
//! ```
//!
//! A shorter form, `Rs/<T> P_BSM Q11 [1 - h(e_X)]`, leaves out the error-correction term `f h(e_Z)`. It is an upper
//! bound, which promises key at any bit error rate. [`MemoryRate::without_correction`] is that figure, for comparison
//! only; [`MemoryRate::bits_per_s`] is the key rate.

use link::proof::binary_entropy;
use types::network::Hardware;
use types::units::Kilometres;

/// Two memories, their sources and the Bell measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memories {
    /// Rs: loading attempts per second, limited by how fast a memory is written and emptied.
    pub attempts_hz: f64,
    /// Probability that a photon is emitted, and that one which arrives is stored and heralded.
    pub loading: f64,
    /// Probability that the Bell measurement of two loaded memories succeeds.
    pub bell: f64,
    /// Coherence time in seconds.
    pub coherence_s: f64,
}

impl Default for Memories {
    /// 1 MHz; sources of 90 %, storage and read-out of 60 %; linear optics that tell two of four Bell states apart;
    /// one second of coherence. Plausible, not yet built: Bhaskar et al., Nature 580 60 (2020), is the real anchor.
    fn default() -> Self {
        Self { attempts_hz: 1e6, loading: 0.9 * 0.6, bell: 0.5 * 0.6 * 0.6, coherence_s: 1.0 }
    }
}

/// What the memories give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryRate {
    /// Secret bits per second; negative by what is missing.
    pub bits_per_s: f64,
    /// The same without the error-correction term: no key rate.
    pub without_correction: f64,
    /// <T>: attempts until both memories are loaded.
    pub attempts: f64,
    /// Error rate in the X basis.
    pub e_x: f64,
    /// Error rate in the Z basis.
    pub e_z: f64,
}

impl Memories {
    /// The rate over a fibre with the relay half way.
    #[must_use]
    pub fn rate(&self, hardware: &Hardware, length: Kilometres, f_ec: f64) -> MemoryRate {
        let arm_db = 0.5 * hardware.attenuation_db_per_km * length.0;
        let loaded = self.loading * libm::pow(10.0, -0.1 * arm_db);
        let attempts = attempts(loaded, loaded);
        let e_d = hardware.misalignment;
        let coherent = coherence(loaded, libm::exp(-1.0 / (self.attempts_hz * self.coherence_s)));
        let e_x = 0.5 * (1.0 - (1.0 - 2.0 * e_d) * coherent);
        let pairs_per_s = self.attempts_hz / attempts * self.bell;
        let without_correction = pairs_per_s * (1.0 - binary_entropy(e_x));
        let bits_per_s = without_correction - pairs_per_s * f_ec * binary_entropy(e_d);
        MemoryRate { bits_per_s, without_correction, attempts, e_x, e_z: e_d }
    }
}

/// <T> for two sides that are loaded with these probabilities per attempt.
#[must_use]
pub fn attempts(pa: f64, pb: f64) -> f64 {
    1.0 / pa + 1.0 / pb - 1.0 / (pa + pb - pa * pb)
}

/// D: what is left of the coherence of the memory that was loaded first, on average, if one attempt leaves `x`.
#[must_use]
pub fn coherence(p0: f64, x: f64) -> f64 {
    p0 / (2.0 - p0) * (1.0 + 2.0 * (1.0 - p0) * x / (1.0 - (1.0 - p0) * x))
}
