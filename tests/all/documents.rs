//! The documents name only tests that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Adds every Rust file below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every test by its full name as documents write it: preceded by the name of its crate, or of the program `sim`.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut folders = vec![("tests/all".to_owned(), String::new()), ("tests/sim".to_owned(), "sim::".to_owned())];
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let before = if name == "retrocap" { String::new() } else { format!("{name}::") };
        folders.push((format!("crates/{name}/src"), before.clone()));
        if root().join(format!("crates/{name}/tests")).exists() {
            folders.push((format!("crates/{name}/tests"), before));
        }
    }
    for (folder, before) in folders {
        let folder = root().join(folder);
        let mut files = Vec::new();
        sources(&folder, &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&folder).unwrap().with_extension("");
            let mut module: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
            module.retain(|part| !["mod", "lib", "main"].contains(part));
            // A nested module precedes the names of its tests.
            let mut inside = "";
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let visible = line.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
                if let Some(name) = visible.strip_prefix("mod ").and_then(|line| line.strip_suffix(" {")) {
                    inside = name;
                }
                is_test |= line == "#[test]";
                if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
                    let name = name.split('(').next().unwrap();
                    let of = [module.join("::").as_str(), inside, name]
                        .iter()
                        .filter(|part| !part.is_empty())
                        .copied()
                        .collect::<Vec<_>>()
                        .join("::");
                    tests.insert(format!("{before}{of}"));
                    is_test = false;
                }
            }
        }
    }
    // The tests of `tests/sim.rs` itself.
    let text = std::fs::read_to_string(root().join("tests/sim.rs")).unwrap();
    let names =
        text.split("#[test]\n").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("fn ")?.split('(').next());
    tests.extend(names.map(|name| format!("sim::{name}")));
    tests
}

/// Expands `a::{b, c}` to `a::b` and `a::c`.
fn spread(name: &str) -> Vec<String> {
    match name.split_once('{') {
        Some((before, list)) => {
            list.trim_end_matches('}').split(',').map(|one| format!("{before}{}", one.trim())).collect()
        }
        None => vec![name.to_owned()],
    }
}

#[test]
fn every_test_that_documents_name_exists() {
    let tests = tests();
    assert!(tests.len() > 300, "{}", tests.len());
    let targets: Vec<String> = std::fs::read_dir(root().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    for document in ["SECURITY.md", "SPECIFICATION.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let (mut named, mut missing) = (0, Vec::new());
        for token in text.split('`').skip(1).step_by(2) {
            let code = token.contains("::") && !token.contains(['/', '=', '…']) && !token.starts_with("std::");
            for name in spread(token).iter().filter(|_| code) {
                // The name of a module stands for all of its tests.
                let module = format!("{}::", name.trim_end_matches(['*', ':']));
                let there = tests.contains(name) || tests.iter().any(|test| test.starts_with(&module));
                if !there {
                    missing.push(name.clone());
                }
                named += 1;
            }
        }
        assert!(missing.is_empty(), "{document} names tests that there are not: {missing:?}");
        eprintln!("{document}: {named} tests");
        assert!(named > 20, "{document}: {named}");
    }
    // Each row in the table of defences names a test.
    let security = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let defended =
        security.split("## What is defended").nth(1).unwrap().split("## What is not defended").next().unwrap();
    for row in defended
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| defence") && !line.starts_with("| ---"))
    {
        let held_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        assert!(held_by.contains('`'), "no test holds this: {row}");
        for target in held_by.split("fuzz target ").skip(1).filter_map(|rest| rest.split('`').nth(1)) {
            assert!(targets.iter().any(|there| there == target), "there is no fuzz target {target}");
        }
    }
}

/// All documents of the project, relative to its root.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "docs"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(Path::new(folder).join(path.file_name().unwrap()));
            }
        }
    }
    documents
}

/// What stands between each pair of `open` and `close`, outside of fenced blocks.
fn between<'t>(text: &'t str, open: &str, close: char) -> Vec<&'t str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split(open).skip(1)).filter_map(|rest| Some(rest.split_once(close)?.0)).collect()
}

#[test]
fn files_that_documents_name_exist() {
    let (mut links, mut paths, mut missing) = (0, 0, Vec::new());
    for document in documents() {
        let text = std::fs::read_to_string(root().join(&document)).unwrap();
        let folder = root().join(document.parent().unwrap());
        for link in between(&text, "](", ')').into_iter().filter(|link| !link.starts_with("https://")) {
            links += 1;
            if !folder.join(link.split('#').next().unwrap()).exists() {
                missing.push(format!("{}: {link}", document.display()));
            }
        }
        // Code spans that are a path below one of these folders, or of a source file within a crate.
        for part in text.split("```").step_by(2) {
            for code in part.split('`').skip(1).step_by(2) {
                let (first, rest) = code.split_once('/').unwrap_or((code, ""));
                let path = match first {
                    "benches" | "crates" | "docs" | "fuzz" | "packaging" | "scripts" | "tests" => root().join(code),
                    _ if rest.starts_with("src/") => root().join("crates").join(code),
                    _ => continue,
                };
                if !code.contains([' ', '*', '{']) {
                    paths += 1;
                    if !path.exists() {
                        missing.push(format!("{}: {code}", document.display()));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that are not there: {missing:#?}");
    assert!(links > 10 && paths > 20, "{links} links, {paths} paths");
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines < 250, "README.md has {lines} lines");
}

/// The words of a shell command, up to a pipe, a redirection, a comment or another command.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '&' | ';' | ')' | '`') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn honest_13_17_commands_in_documents_have_flags_that_exist() {
    let (mut commands, mut wrong) = (0, Vec::new());
    for document in documents() {
        let text = std::fs::read_to_string(root().join(&document)).unwrap().replace("\\\n", " ");
        for line in text.split("```").skip(1).step_by(2).flat_map(str::lines) {
            // A path, another word that ends with the name, or the value of an option is no command.
            let is_command = |at: &usize| {
                let before = line[..*at].split(' ').rev().find(|word| !word.is_empty()).unwrap_or_default();
                line[..*at].ends_with([' ', '/', '`']) && !before.starts_with('-')
            };
            let mut names = line.match_indices("retrocap ").map(|(at, _)| at).filter(|_| line.contains("$ "));
            let Some(at) = names.find(is_command) else { continue };
            let command = &line[at + "retrocap ".len()..];
            let mut words = words(command);
            // Options of the program itself stand before the verb.
            let verb = words.iter().find(|word| !word.starts_with('-') && !word.contains('/')).cloned();
            if verb.is_none_or(|verb| !verb.chars().all(|c| c.is_ascii_lowercase()) || verb == "help") {
                continue;
            }
            let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.insert(end, "--help".to_owned());
            commands += 1;
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_retrocap")).args(&words).output().unwrap();
            if !output.status.success() {
                wrong.push(format!("{}: {line}: {}", document.display(), String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    eprintln!("{commands} commands");
    assert!(commands > 20, "{commands}");
}
