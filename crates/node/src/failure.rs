//! What a command says when it fails: what happened, to which thing, and what to do next.

use std::error::Error;
use std::fmt;

/// A failure that ends a command. Printed once, in `main`.
#[derive(Debug)]
pub struct Failure {
    what: String,
    remedy: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
    exit_code: u8,
}

/// Result of a command or of a part of it.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// What happened, naming the thing.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None, source: None, exit_code: 1 }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With which exit code the process ends; 1 unless said otherwise.
    #[must_use]
    pub fn exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    /// The exit code of a process that ends with this failure.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.exit_code
    }

    /// The error underneath.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Adds the name of the thing to an error from below.
pub trait Context<T> {
    /// Turns an error into a [`Failure`] that begins with `what`.
    ///
    /// # Errors
    /// The same error, named.
    fn context(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::new(what()).source(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut below = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  what to do: {remedy}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}
