//! Rust files as the house rules see them: parsed, in the order of their paths.

use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// One file, parsed.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) syntax: syn::File,
}

impl Source {
    pub(super) fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, syntax }
    }
}

/// All Rust files below a folder, in the order of their names. Build results are left out.
pub(super) fn below(folder: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(folder, &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source::read(path));
        }
    }
}

/// Whether a file has the keyword `unsafe`, in a macro too.
pub(super) fn says_unsafe(source: &Source) -> bool {
    fn among(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(word) => word == "unsafe",
            TokenTree::Group(group) => among(group.stream()),
            _ => false,
        })
    }
    among(source.syntax.to_token_stream())
}

/// Every function of a file with a body: its name, its first line, and how many lines it has.
pub(super) fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    #[derive(Default)]
    struct Functions(Vec<(String, usize, usize)>);
    impl Functions {
        fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
            let first = signature.span().start().line;
            let last = block.span().end().line;
            self.0.push((signature.ident.to_string(), first, last - first + 1));
        }
    }
    impl<'ast> Visit<'ast> for Functions {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.add(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.add(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
        fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
            if let Some(block) = &item.default {
                self.add(&item.sig, block);
            }
            visit::visit_trait_item_fn(self, item);
        }
    }
    let mut functions = Functions::default();
    functions.visit_file(&source.syntax);
    functions.0
}
