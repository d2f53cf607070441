//! Values into instructions: which parts of which instruction have variables is decided here.

use super::{Argument, Command, Pairs, Transfer};
use crate::error::Problem;
use crate::words::{Lexer, Names, Variables, Words};

/// The most bytes everything in one build may expand to.
pub(crate) const MAX_EXPANDED: usize = 64 << 20;

/// Expands words with one environment, and notes which variables were missed.
#[derive(Debug)]
pub struct Expander<'a> {
    lexer: Lexer,
    variables: &'a Variables,
    /// Names without a value, word by word: what two words miss is here twice.
    pub unmatched: Vec<String>,
    /// Bytes of values so far. Who expands one word after another with several of these passes it on.
    pub spent: usize,
}

impl<'a> Expander<'a> {
    /// `escape` is the file's ([`crate::Dockerfile::escape`]).
    pub fn new(escape: char, variables: &'a Variables) -> Self {
        Self {
            lexer: Lexer::new(escape),
            variables,
            unmatched: Vec::new(),
            spent: 0,
        }
    }

    pub fn word(&mut self, word: &str) -> Result<String, Problem> {
        let mut names = Names::default();
        let text = self.named(word, &mut names);
        self.unmatched.extend(names.unmatched);
        text
    }

    /// The same for those who want to know the names of each word.
    pub(crate) fn named(&mut self, word: &str, names: &mut Names) -> Result<String, Problem> {
        // Most words have nothing to expand.
        if !word.contains(['$', '\'', '"', self.lexer.escape]) {
            self.spend(word.len())?;
            return Ok(word.to_owned());
        }
        let expanded = self.lexer.expand(word, self.variables, names)?;
        self.spend(cost(&expanded))?;
        Ok(expanded.text)
    }

    /// A word that may become several, or none. What it misses is not noted.
    pub fn words(&mut self, word: &str) -> Result<Vec<String>, Problem> {
        let expanded = self.lexer.expand(word, self.variables, &mut Names::default())?;
        self.spend(cost(&expanded))?;
        Ok(expanded.words)
    }

    /// A here-document: quotes mean nothing, and the escape character is always `\`.
    pub fn document(&mut self, content: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut lexer = Lexer::new('\\');
        lexer.ignore_quotes = true;
        let mut names = Names::default();
        let expanded = lexer.expand(&String::from_utf8_lossy(content), self.variables, &mut names);
        self.unmatched.extend(names.unmatched);
        let expanded = expanded?;
        self.spend(cost(&expanded))?;
        Ok(expanded.text.into_bytes())
    }

    fn spend(&mut self, cost: usize) -> Result<(), Problem> {
        self.spent += cost;
        if self.spent > MAX_EXPANDED {
            return Err(Problem::invalid(format!(
                "values of variables take more than {MAX_EXPANDED} bytes in all: a variable that is made of itself grows without end"
            )));
        }
        Ok(())
    }

    fn all(&mut self, words: &[String]) -> Result<Vec<String>, Problem> {
        words.iter().map(|word| self.word(word)).collect()
    }

    fn optional(&mut self, word: Option<&String>) -> Result<Option<String>, Problem> {
        let word = word.map(|word| self.word(word)).transpose()?;
        Ok(word.filter(|word| !word.is_empty()))
    }
}

/// Steps of patterns count too: a short pattern on a long value writes little and takes long.
fn cost(expanded: &Words) -> usize {
    expanded.text.len() + expanded.steps
}

impl Command {
    /// The instruction with the values of `expander`. `ARG` stays as it is: its default counts only if nobody gives another
    /// value ([`Argument::value`]). So does `RUN`: its mounts have variables ([`super::Run::mounts`]).
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<Self, Problem> {
        Ok(match self {
            Self::Add(transfer) => Self::Add(transfer.expand(expander)?),
            Self::Copy(transfer) => Self::Copy(transfer.expand(expander)?),
            Self::Env(pairs) => Self::Env(pairs.expand(expander)?),
            Self::Label(pairs) => Self::Label(pairs.expand(expander)?),
            Self::Expose(ports) => {
                let mut all = Vec::new();
                for port in ports {
                    all.extend(expander.words(port)?);
                }
                Self::Expose(all)
            }
            Self::StopSignal(word) => Self::StopSignal(expander.word(word)?),
            Self::User(word) => Self::User(expander.word(word)?),
            Self::Workdir(word) => Self::Workdir(expander.word(word)?),
            Self::Volume(paths) => {
                let paths = expander.all(paths)?;
                if paths.iter().any(String::is_empty) {
                    return Err(super::parse::empty_volume());
                }
                Self::Volume(paths)
            }
            Self::Arg(_)
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Run(_)
            | Self::Shell(_) => self.clone(),
        })
    }
}

impl Argument {
    /// The default with the values of variables.
    pub fn value(&self, expander: &mut Expander<'_>) -> Result<Option<String>, Problem> {
        self.default.as_ref().map(|word| expander.word(word)).transpose()
    }
}

impl Pairs {
    fn expand(&self, expander: &mut Expander<'_>) -> Result<Self, Problem> {
        let pair = |(key, value): &(String, String)| Ok((expander.word(key)?, expander.word(value)?));
        Ok(Self {
            pairs: self.pairs.iter().map(pair).collect::<Result<_, Problem>>()?,
            legacy: self.legacy,
        })
    }
}

impl Transfer {
    fn expand(&self, expander: &mut Expander<'_>) -> Result<Self, Problem> {
        let mut expanded = Self {
            chown: expander.optional(self.chown.as_ref())?,
            chmod: expander.optional(self.chmod.as_ref())?,
            checksum: expander.optional(self.checksum.as_ref())?,
            exclude: expander.all(&self.exclude)?,
            sources: expander.all(&self.sources)?,
            destination: expander.word(&self.destination)?,
            ..self.clone()
        };
        for document in &mut expanded.documents {
            if document.expands {
                document.content = expander.document(&document.content)?;
            }
        }
        Ok(expanded)
    }
}
