//! The keys and secrets both sides of the sandbox know. They are the placeholders of `spin.toml`, so the app
//! and the sandbox fit together without a single setting.

/// What the stand-ins accept, and what they sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub s3_access_key_id: String,
    pub s3_secret_access_key: String,
    pub kie_api_key: String,
    /// Callbacks of the AI provider carry no signature when this is empty.
    pub kie_webhook_hmac_key: String,
    pub creem_api_key: String,
    pub creem_webhook_secret: String,
    pub google_client_id: String,
    pub google_client_secret: String,
    pub github_client_id: String,
    pub github_client_secret: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            s3_access_key_id: "loopback-only-s3-key".into(),
            s3_secret_access_key: "loopback-only-s3-secret".into(),
            kie_api_key: "loopback-only-kie-key".into(),
            kie_webhook_hmac_key: "loopback-only-kie-hmac".into(),
            creem_api_key: "loopback-only-creem-key".into(),
            creem_webhook_secret: "loopback-only-creem-webhook".into(),
            google_client_id: "loopback-only-google-client".into(),
            google_client_secret: "loopback-only-google-secret".into(),
            github_client_id: "loopback-only-github-client".into(),
            github_client_secret: "loopback-only-github-secret".into(),
        }
    }
}
