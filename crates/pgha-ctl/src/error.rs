//! Why a command did not come to its end. Each text says what was found and, where there is one, the remedy.

use std::io;

use pgha_dcs::DcsError;

use crate::limits::DCS_BUDGET;

/// The error of this crate. All but [`CtlError::Output`] are shown to the user as `Error: <text>`.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The cluster, or the user's answer, does not allow it. The text is the whole explanation.
    #[error("{0}")]
    Refused(String),
    /// A prompt met the end of its input.
    #[error("Aborted!")]
    Aborted,
    /// The command line lacks something, or has too much.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The store did not answer, or refused.
    #[error("etcd cannot be read within {} seconds ({tried}): {}", DCS_BUDGET.as_secs(), explain(source))]
    Dcs {
        /// The endpoints.
        tried: String,
        /// What happened.
        #[source]
        source: DcsError,
    },
    /// Standard output or the prompt's input failed.
    #[error("the terminal or pipe failed: {0}")]
    Output(#[from] io::Error),
}

impl CtlError {
    /// [`CtlError::Refused`] from any text.
    pub fn refused(text: impl Into<String>) -> CtlError {
        CtlError::Refused(text.into())
    }
}

/// An error with all its causes: a bare "request failed" helps nobody.
pub(crate) fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
