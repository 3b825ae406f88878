//! Conditions on edges: Python expressions, as Hive's agents write them, evaluated within bounds.
//!
//! The starlark crate evaluates them. What it lacks is read or supplied here: `is` and `is not` are
//! read as `==` and `!=`, a name that is not set is None, and `sum` and `round` are our own. What
//! could take long or much memory is refused before it runs: only a few functions and methods may be
//! called, texts and lists cannot be repeated with `*`, and instructions and memory are counted.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};
use starlark::environment::{Globals, GlobalsBuilder, Module};
use starlark::eval::Evaluator;
use starlark::syntax::{AstModule, Dialect};

use super::token::{Token, tokens};

/// The longest expression, in bytes.
const MAX_TEXT: usize = 4096;
/// The deepest nesting of brackets: the parser is recursive.
const MAX_DEPTH: usize = 32;
/// Instructions of one evaluation; a few milliseconds.
const MAX_TICKS: u64 = 100_000;
/// Memory of one evaluation, in bytes.
const MAX_MEMORY: usize = 16 * 1024 * 1024;
/// Functions that may be called.
const FUNCTIONS: &[&str] = &[
    "len", "int", "float", "str", "bool", "list", "dict", "min", "max", "sum", "abs", "round", "all", "any", "sorted",
];
/// Methods that may be called: none makes much out of little.
const METHODS: &[&str] = &[
    "lower",
    "upper",
    "strip",
    "lstrip",
    "rstrip",
    "startswith",
    "endswith",
    "get",
    "keys",
    "values",
    "items",
    "split",
    "count",
    "find",
    "index",
    "title",
    "capitalize",
    "isdigit",
    "isalpha",
    "isalnum",
    "isspace",
    "islower",
    "isupper",
];
/// Words of the language that may stand in an expression.
const WORDS: &[&str] = &["and", "or", "not", "in", "if", "else", "for", "True", "False", "None"];
/// Other spellings of constants.
const CONSTANTS: &[(&str, &str)] = &[("true", "True"), ("false", "False"), ("null", "None")];

/// An expression that has been checked.
#[derive(Clone)]
pub struct Expression {
    text: String,
    ast: String,
    names: BTreeSet<String>,
    globals: Globals,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct Error {
    text: String,
    reason: String,
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// It is no expression, or does what a condition must not.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let error = |reason: String| Error { text: text.chars().take(80).collect(), reason };
        if text.len() > MAX_TEXT {
            return Err(error(format!("an expression has at most {MAX_TEXT} bytes")));
        }
        let tokens = tokens(text).map_err(error)?;
        let names = check(&tokens).map_err(error)?;
        let ast = python(&tokens);
        // Parsed once to be checked; a parsed module is used up by its evaluation.
        module(&ast).map_err(|reason| error(format!("it is no expression: {reason}")))?;
        let globals = GlobalsBuilder::standard().with(natives).build();
        Ok(Self { text: text.to_owned(), ast, names, globals })
    }

    /// Whether it holds over a memory and a node's outputs, which come first. At most some ten milliseconds.
    ///
    /// # Errors
    /// It fails, or takes too much.
    pub fn holds(&self, memory: &Map<String, Value>, outputs: &Map<String, Value>) -> Result<bool, Error> {
        let error = |reason: String| Error { text: self.text.chars().take(80).collect(), reason };
        let ast = module(&self.ast).map_err(error)?;
        let outcome = Module::with_temp_heap(|module| {
            for name in &self.names {
                let value = outputs.get(name).or_else(|| memory.get(name));
                let value = match (value, name.as_str()) {
                    (Some(value), _) => module.heap().alloc(value),
                    (None, "output") => module.heap().alloc(Value::Object(outputs.clone())),
                    (None, "memory") => module.heap().alloc(Value::Object(memory.clone())),
                    (None, _) => starlark::values::Value::new_none(),
                };
                module.set(name, value);
            }
            let mut evaluator = Evaluator::new(&module);
            evaluator.disable_gc();
            evaluator.set_max_tick_count(MAX_TICKS).map_err(|error| error.to_string())?;
            evaluator.set_max_heap_size(MAX_MEMORY).map_err(|error| error.to_string())?;
            evaluator.set_max_callstack_size(MAX_DEPTH).map_err(|error| error.to_string())?;
            let value = evaluator.eval_module(ast, &self.globals).map_err(|error| plain(&error))?;
            Ok(value.to_bool())
        });
        outcome.map_err(error)
    }
}

fn module(text: &str) -> Result<AstModule, String> {
    let dialect = Dialect { enable_def: false, enable_lambda: false, enable_load: false, ..Dialect::Standard };
    let mut ast = AstModule::parse("condition", text.to_owned(), &dialect).map_err(|error| plain(&error))?;
    ast.replace_binary_operators(&HashMap::from([("*".to_owned(), "times_".to_owned())]));
    Ok(ast)
}

/// The first line of an error; the rest points into a text that the user did not write.
fn plain(error: &starlark::Error) -> String {
    error.without_diagnostic().to_string().lines().next().unwrap_or_default().to_owned()
}

/// Refuses what a condition must not do, and gives the names that it reads.
fn check(tokens: &[Token<'_>]) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|at| tokens.get(at));
        let called = tokens.get(i + 1) == Some(&Token::Sign("("));
        match token {
            Token::Name(name) if before == Some(&Token::Sign(".")) => {
                if called && !METHODS.contains(name) {
                    return Err(format!("the method {name} cannot be called here; there are {}", METHODS.join(", ")));
                }
            }
            Token::Name("lambda" | "def" | "load" | "return" | "while" | "import" | "pass") => {
                return Err("give one expression and no statement".to_owned());
            }
            Token::Name(name) if called && !WORDS.contains(name) && *name != "is" => {
                if !FUNCTIONS.contains(name) {
                    return Err(format!(
                        "the function {name} cannot be called here; there are {}",
                        FUNCTIONS.join(", ")
                    ));
                }
            }
            Token::Name(name) if !WORDS.contains(name) && *name != "is" && !FUNCTIONS.contains(name) => {
                if CONSTANTS.iter().all(|(from, _)| from != name) {
                    names.insert((*name).to_owned());
                }
            }
            Token::Sign("(" | "[" | "{") => {
                open.push(token);
                if open.len() > MAX_DEPTH {
                    return Err(format!("brackets are nested at most {MAX_DEPTH} deep"));
                }
            }
            Token::Sign(sign @ (")" | "]" | "}")) => match (open.pop(), *sign) {
                (Some(Token::Sign("(")), ")") | (Some(Token::Sign("[")), "]") | (Some(Token::Sign("{")), "}") => {}
                _ => return Err(format!("{sign} closes nothing")),
            },
            Token::Sign("=" | ";" | "<<" | ">>" | "+=" | "-=" | "*=" | "/=" | "**" | ":=" | "@" | "\\") => {
                return Err("only comparisons, arithmetic, and, or, not and in may stand here".to_owned());
            }
            Token::Name(_) | Token::Sign(_) | Token::Text(_) | Token::Number(_) => {}
        }
    }
    // A long chain of prefixes nests as brackets do.
    let prefixes = tokens.iter().filter(|token| matches!(token, Token::Name("not") | Token::Sign("-" | "+" | "~")));
    if prefixes.count() > 4 * MAX_DEPTH {
        return Err("there are too many signs".to_owned());
    }
    if tokens.is_empty() { Err("it is empty".to_owned()) } else { Ok(names) }
}

/// The text that starlark reads.
fn python(tokens: &[Token<'_>]) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = tokens.iter().peekable();
    let mut before = None;
    while let Some(token) = rest.next() {
        let word = match token {
            Token::Name("is") => {
                if rest.next_if_eq(&&Token::Name("not")).is_some() {
                    "!="
                } else {
                    "=="
                }
            }
            Token::Name(name) if before != Some(&Token::Sign(".")) => {
                CONSTANTS.iter().find(|(from, _)| from == name).map_or(*name, |(_, to)| *to)
            }
            Token::Name(text) | Token::Sign(text) | Token::Text(text) | Token::Number(text) => text,
        };
        words.push(word);
        before = Some(token);
    }
    format!("({})", words.join(" "))
}

#[starlark::starlark_module]
fn natives(builder: &mut GlobalsBuilder) {
    /// Multiplies numbers. Texts and lists are not repeated: a few bytes could ask for gigabytes.
    fn times_<'v>(
        left: starlark::values::Value<'v>,
        right: starlark::values::Value<'v>,
        heap: starlark::values::Heap<'v>,
    ) -> starlark::Result<starlark::values::Value<'v>> {
        let number = |value: &starlark::values::Value<'v>| matches!(value.get_type(), "int" | "float");
        if !number(&left) || !number(&right) {
            return Err(anyhow_error("only numbers can be multiplied in a condition"));
        }
        left.mul(right, heap)
    }

    /// The sum of numbers.
    fn sum<'v>(
        values: starlark::values::Value<'v>,
        heap: starlark::values::Heap<'v>,
    ) -> starlark::Result<starlark::values::Value<'v>> {
        let mut sum = heap.alloc(0);
        for value in values.iterate(heap)? {
            if !matches!(value.get_type(), "int" | "float") {
                return Err(anyhow_error("only numbers can be summed in a condition"));
            }
            sum = sum.add(value, heap)?;
        }
        Ok(sum)
    }

    /// A number rounded half to even, as Python does.
    fn round<'v>(
        value: starlark::values::Value<'v>,
        #[starlark(default = 0)] digits: i32,
        heap: starlark::values::Heap<'v>,
    ) -> starlark::Result<starlark::values::Value<'v>> {
        let Some(number) = value.to_json_value().ok().and_then(|value| value.as_f64()) else {
            return Err(anyhow_error("only a number can be rounded"));
        };
        let scale = 10f64.powi(digits.clamp(-300, 300));
        let rounded = (number * scale).round_ties_even() / scale;
        #[expect(clippy::cast_possible_truncation, reason = "it is in range")]
        if digits == 0 && rounded.abs() < 1e15 {
            return Ok(heap.alloc(rounded as i64));
        }
        Ok(heap.alloc(rounded))
    }
}

fn anyhow_error(text: &'static str) -> starlark::Error {
    starlark::Error::new_other(std::io::Error::other(text))
}

#[cfg(test)]
#[path = "expression_tests.rs"]
mod tests;
