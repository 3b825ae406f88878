//! Which model is asked, and where, from the environment.

use std::time::Duration;

use super::Error;

/// The wire format of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Chat completions, which most servers speak.
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
}

impl Format {
    /// Its name in traces.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::OpenAi => "openai/",
            Self::Anthropic => "anthropic/",
        }
    }
}

/// How to reach a model.
#[derive(Clone)]
pub struct Settings {
    /// The wire format.
    pub format: Format,
    /// Where, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model that is asked when an agent names none.
    pub model: String,
    /// What proves who asks; servers of one's own may need none.
    pub key: Option<String>,
    /// The longest time of a whole answer.
    pub timeout: Duration,
    /// The longest silence within it.
    pub idle_timeout: Duration,
    /// How often a call is tried, at least once.
    pub attempts: u32,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, base_url, model, .. } = self;
        f.debug_struct("Settings").field("format", format).field("base_url", base_url).field("model", model).finish()
    }
}

impl Settings {
    /// Reads `HIVE_LLM_PROVIDER` (openai or anthropic), `HIVE_LLM_MODEL`, `HIVE_LLM_BASE_URL`,
    /// `HIVE_LLM_API_KEY` or `HIVE_LLM_API_KEY_FILE`, `HIVE_LLM_TIMEOUT_SECONDS` (300),
    /// `HIVE_LLM_IDLE_TIMEOUT_SECONDS` (60) and `HIVE_LLM_ATTEMPTS` (5). `OPENAI_API_KEY` and
    /// `ANTHROPIC_API_KEY` serve where no key of ours is set. None when there is neither a key nor a URL.
    ///
    /// # Errors
    /// A value is not what it should be, or the key's file cannot be read.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let invalid = |name: &str, reason: String| Error::Setting { name: name.to_owned(), reason };
        let format = match get("HIVE_LLM_PROVIDER").as_deref() {
            Some("openai") => Format::OpenAi,
            Some("anthropic") => Format::Anthropic,
            Some(other) => {
                return Err(invalid("HIVE_LLM_PROVIDER", format!("it is openai or anthropic, not {other:?}")));
            }
            None if get("OPENAI_API_KEY").is_none() && get("ANTHROPIC_API_KEY").is_some() => Format::Anthropic,
            None => Format::OpenAi,
        };
        let (common, url, fallback) = match format {
            Format::OpenAi => ("OPENAI_API_KEY", "https://api.openai.com/v1", "gpt-4o-mini"),
            Format::Anthropic => ("ANTHROPIC_API_KEY", "https://api.anthropic.com/v1", "claude-haiku-4-5"),
        };
        let key = match (get("HIVE_LLM_API_KEY"), get("HIVE_LLM_API_KEY_FILE")) {
            (Some(key), _) => Some(key),
            (None, Some(file)) => {
                let read = std::fs::read_to_string(&file);
                Some(read.map_err(|error| invalid("HIVE_LLM_API_KEY_FILE", format!("{file}: {error}")))?)
            }
            (None, None) => get(common),
        };
        let base_url = get("HIVE_LLM_BASE_URL");
        if key.is_none() && base_url.is_none() {
            return Ok(None);
        }
        let number = |name: &str, default: u64, most: u64| match get(name).map(|value| value.trim().parse::<u64>()) {
            None => Ok(default),
            Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(invalid(name, format!("give a number from 1 to {most}"))),
        };
        let seconds = |name: &str, default: u64| number(name, default, 86_400).map(Duration::from_secs);
        Ok(Some(Self {
            format,
            base_url: base_url.unwrap_or_else(|| url.to_owned()).trim_end_matches('/').to_owned(),
            model: get("HIVE_LLM_MODEL").unwrap_or_else(|| fallback.to_owned()),
            key: key.map(|key| key.trim().to_owned()),
            timeout: seconds("HIVE_LLM_TIMEOUT_SECONDS", 300)?,
            idle_timeout: seconds("HIVE_LLM_IDLE_TIMEOUT_SECONDS", 60)?,
            attempts: u32::try_from(number("HIVE_LLM_ATTEMPTS", 5, 100)?).unwrap_or(1),
        }))
    }

    /// The model's name for the server: agents name the provider too.
    pub(super) fn named<'a>(&'a self, model: Option<&'a str>) -> &'a str {
        let model = model.unwrap_or(&self.model);
        model.strip_prefix(self.format.prefix()).unwrap_or(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::from_env(get)
    }

    #[test]
    fn the_environment_says_which_model_is_asked_and_where() {
        assert!(read(&[]).unwrap().is_none());
        let anthropic = read(&[("ANTHROPIC_API_KEY", "k")]).unwrap().unwrap();
        assert_eq!((anthropic.format, anthropic.key.as_deref()), (Format::Anthropic, Some("k")));
        assert_eq!(anthropic.named(Some("anthropic/claude-x")), "claude-x");
        let own = read(&[("HIVE_LLM_BASE_URL", "http://m/v1/"), ("HIVE_LLM_MODEL", "tiny")]).unwrap().unwrap();
        assert_eq!((own.base_url.as_str(), own.named(None), own.key.as_deref()), ("http://m/v1", "tiny", None));
        assert!(!format!("{anthropic:?}").contains("\"k\""), "the key is not shown");
    }

    #[test]
    fn a_key_may_stand_in_a_file_and_what_is_wrong_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let path = file.path().display().to_string();
        assert_eq!(read(&[("HIVE_LLM_API_KEY_FILE", &path)]).unwrap().unwrap().key.as_deref(), Some("secret"));
        for (name, value) in [
            ("HIVE_LLM_API_KEY_FILE", "/none"),
            ("HIVE_LLM_PROVIDER", "oracle"),
            ("HIVE_LLM_TIMEOUT_SECONDS", "0"),
            ("HIVE_LLM_ATTEMPTS", "many"),
        ] {
            let error = read(&[("OPENAI_API_KEY", "k"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
