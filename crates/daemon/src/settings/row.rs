//! What one row of the table of settings holds, and the macro that makes a field and its behaviour of a row.

use super::value::Value;

/// One setting of the type `S`, which has a field for each.
#[derive(Clone, Copy, Debug)]
pub struct Row<S: 'static> {
    /// `limits` for a key below `[limits]`; empty for a key before the first heading.
    pub section: &'static str,
    /// The key in the file and the name of the flag.
    pub name: &'static str,
    /// What it is for. The first sentence stands alone in the short help.
    pub about: &'static str,
    /// What holds where nothing else is said.
    pub default: DefaultValue,
    /// When a change in the file takes effect.
    pub reload: Reload,
    /// How the command line takes it, if it does.
    pub flag: Option<Flag>,
    pub(super) read: fn(&mut S, Value<'_>) -> Result<(), String>,
    pub(super) reset: fn(&mut S),
    pub(super) differs: fn(&S, &S) -> bool,
    /// Takes over the second one's value.
    pub(super) adopt: fn(&mut S, &S),
}

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At the reload.
    Now,
    /// At the next start.
    Restart,
}

/// What holds where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// This value, as the command line would have it.
    Is(&'static str),
    /// Nothing that could be written as a value: the words for it, and an example in TOML.
    Unset(&'static str, &'static str),
}

/// A flag of `retrocap run`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The letter.
    pub short: Option<char>,
    /// What stands for the value in the help; `None` for a switch.
    pub value_name: Option<&'static str>,
    /// Whether it may be given several times.
    pub many: bool,
    /// The heading in the help.
    pub heading: Option<&'static str>,
    /// Every word that it takes, where there are only a few.
    pub words: &'static [&'static str],
    /// A setting that cannot be given beside it, and that it overrules in the file.
    pub excludes: Option<&'static str>,
    /// The value of the flag where it is given without one.
    pub alone: Option<&'static str>,
}

impl Flag {
    /// A flag without a value.
    pub(super) const SWITCH: Self =
        Self { short: None, value_name: None, many: false, heading: None, words: &[], excludes: None, alone: None };

    pub(super) const fn value(name: &'static str) -> Self {
        Self { value_name: Some(name), ..Self::SWITCH }
    }

    pub(super) const fn many(name: &'static str) -> Self {
        Self { value_name: Some(name), many: true, ..Self::SWITCH }
    }

    pub(super) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    pub(super) const fn heading(self, heading: &'static str) -> Self {
        Self { heading: Some(heading), ..self }
    }

    pub(super) const fn words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    pub(super) const fn alone(self, value: &'static str) -> Self {
        Self { alone: Some(value), ..self }
    }

    pub(super) const fn excludes(self, other: &'static str) -> Self {
        Self { excludes: Some(other), ..self }
    }
}

/// Keys under one heading of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<S: 'static> {
    /// `retention` for `[retention]`; empty for the keys before the first heading.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// For a section that may occur several times (`[[class]]`): adds an element, before its keys are read.
    pub(super) add: Option<fn(&mut S)>,
    /// Keys that each element must have.
    pub(super) required: &'static [&'static str],
}

impl<S: Default> Row<S> {
    /// Whether the command line's `words` can be a value.
    ///
    /// # Errors
    ///
    /// Why not, and what would be right.
    pub fn check(&self, word: &std::ffi::OsStr) -> Result<(), String> {
        (self.read)(&mut S::default(), Value::Flag(&[word.to_owned()]))
    }

    /// The default as it would stand in a file; an example where there is none.
    pub fn sample(&self) -> String {
        match self.default {
            DefaultValue::Is(text) if text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok() => text.to_owned(),
            DefaultValue::Is(text) => format!("{text:?}"),
            DefaultValue::Unset(_, example) => example.to_owned(),
        }
    }
}

/// The value of a field before anything is read.
pub(super) fn initial<T: Default>(default: DefaultValue, read: fn(Value<'_>) -> Result<T, String>) -> T {
    match default {
        // A test reads every default.
        DefaultValue::Is(text) => read(Value::Default(text)).unwrap_or_default(),
        DefaultValue::Unset(..) => T::default(),
    }
}

/// Makes [`Settings`] and its rows: `section "name" => field: Type = default, reload, flag, reader;`. The documentation of
/// a row is that of its field, of its flag and of its key.
macro_rules! settings {
    (
        $($(#[doc = $about:literal])+
        $section:literal $name:literal => $field:ident: $type:ty = $default:expr, $reload:ident, $flag:expr, $read:expr;)+
        lists { $($(#[$meta:meta])* $list:ident: $list_type:ty,)* }
    ) => {
        /// What to record, and how. See the crate's table of settings.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $about])+ pub $field: $type,)+
            $($(#[$meta])* pub $list: $list_type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self {
                    $($field: $crate::settings::row::initial($default, $read),)+
                    $($list: Default::default(),)*
                }
            }
        }

        /// Every setting that has one value, in the order of the sample.
        const ROWS: &[Row<Settings>] = &[$(Row {
            section: $section,
            name: $name,
            about: concat!($($about),+),
            default: $default,
            reload: Reload::$reload,
            flag: $flag,
            read: |settings, value| {
                let read: fn(Value<'_>) -> Result<$type, String> = $read;
                settings.$field = read(value)?;
                Ok(())
            },
            reset: |settings| settings.$field = $crate::settings::row::initial($default, $read),
            differs: |one, other| one.$field != other.$field,
            adopt: |to, from| to.$field.clone_from(&from.$field),
        }),+];
    };
}
pub(super) use settings;
