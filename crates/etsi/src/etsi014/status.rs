//! Status (ETSI GS QKD 014, 6.1).

use serde::{Deserialize, Serialize};

/// Answer of get status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// KME that serves the caller.
    #[serde(rename = "source_KME_ID")]
    pub source_kme_id: String,
    /// KME that serves the slave SAE.
    #[serde(rename = "target_KME_ID")]
    pub target_kme_id: String,
    /// The caller.
    #[serde(rename = "master_SAE_ID")]
    pub master_sae_id: String,
    /// The slave SAE.
    #[serde(rename = "slave_SAE_ID")]
    pub slave_sae_id: String,
    /// Default key size in bits.
    pub key_size: u64,
    /// Keys of the default size that can be supplied now.
    pub stored_key_count: u64,
    /// Most keys that can be stored.
    pub max_key_count: u64,
    /// Most keys in one request.
    pub max_key_per_request: u64,
    /// Largest key in bits.
    pub max_key_size: u64,
    /// Smallest key in bits.
    pub min_key_size: u64,
    /// Most additional slave SAEs in one request.
    #[serde(rename = "max_SAE_ID_count")]
    pub max_sae_id_count: u64,
    /// What our KMEs say beyond the standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_extension: Option<StatusExtension>,
}

/// Our members of `status_extension`; those of other makers are not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusExtension {
    /// Keys of the default size that the pair gets a second.
    #[serde(default, rename = "qurrent_keys_per_second", skip_serializing_if = "Option::is_none")]
    pub keys_per_second: Option<f64>,
    /// Seconds until the stock is empty at the present use.
    #[serde(default, rename = "qurrent_seconds_to_empty", skip_serializing_if = "Option::is_none")]
    pub seconds_to_empty: Option<f64>,
}
