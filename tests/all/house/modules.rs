//! Which file of a crate uses which, and the cycles among them.
//!
//! A file uses another if it names an item that the other defines: in an import, in a path, or in a macro's tokens. A
//! re-export leads to the file that defines the item, so that neither the re-export nor the file that contains it
//! counts. The declaration of a child module and the import of a module do not count either. `Type::function` and
//! `self.method()` lead to the file that implements them, which need not be the file of the type. Code that only tests
//! contain does not count.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// The number of a module in [`Crate::modules`].
type Id = usize;

/// A module: a file, or a part of one.
struct Module {
    file: PathBuf,
    parent: Option<Id>,
    items: Vec<syn::Item>,
    children: HashMap<String, Id>,
    /// Items that the module defines.
    own: BTreeSet<String>,
    imports: Vec<Import>,
}

/// One name that a module imports.
#[derive(Clone)]
struct Import {
    /// The name in this module; `None` for all names below the path.
    name: Option<String>,
    path: Vec<String>,
    /// Whether the import serves other modules. Such an import is no use by itself.
    re_exported: bool,
    line: usize,
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Module(Id),
    /// An item of a module.
    Item(Id),
}

/// The line of a file that uses another file.
pub(super) type Uses = BTreeMap<(PathBuf, PathBuf), usize>;

/// A crate as a tree of modules.
pub(super) struct Crate {
    modules: Vec<Module>,
    /// The module that implements a method of a type: by the type's module, the type's name, and the method's.
    methods: HashMap<(Id, String, String), Id>,
    /// Guards against imports that lead to themselves.
    resolving: RefCell<BTreeSet<(Id, String)>>,
}

/// Whether code is compiled for tests only.
fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list)
                if list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test"))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The file that `#[path = "…"]` names.
fn named_path(attributes: &[syn::Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &pair.value else { return None };
    Some(path.value())
}

fn line(span: Span) -> usize {
    span.start().line
}

impl Crate {
    /// Reads the crate whose root is this file.
    pub(super) fn read(root: &Path) -> Self {
        let mut read = Self { modules: Vec::new(), methods: HashMap::new(), resolving: RefCell::new(BTreeSet::new()) };
        let folder = root.parent().unwrap().to_owned();
        read.add_file(root.to_owned(), &folder, None);
        read.note_methods();
        read
    }

    fn add_file(&mut self, file: PathBuf, folder: &Path, parent: Option<Id>) -> Id {
        let items = super::source::Source::read(file.clone()).syntax.items;
        self.add(file, folder, parent, items)
    }

    fn add(&mut self, file: PathBuf, folder: &Path, parent: Option<Id>, items: Vec<syn::Item>) -> Id {
        let items: Vec<_> = items.into_iter().filter(|item| !only_for_tests(attributes(item))).collect();
        let id = self.modules.len();
        let mut module = Module {
            file: file.clone(),
            parent,
            items: Vec::new(),
            children: HashMap::new(),
            own: BTreeSet::new(),
            imports: Vec::new(),
        };
        for item in &items {
            if let Some(name) = defined(item) {
                module.own.insert(name);
            }
            if let syn::Item::Use(item) = item {
                let re_exported = !matches!(item.vis, syn::Visibility::Inherited);
                imports(&item.tree, &mut Vec::new(), re_exported, &mut module.imports);
            }
        }
        self.modules.push(module);
        for item in &items {
            let syn::Item::Mod(child) = item else { continue };
            let name = child.ident.to_string();
            let below = folder.join(&name);
            let child = match &child.content {
                Some((_, items)) => self.add(file.clone(), &below, Some(id), items.clone()),
                None => {
                    let beside = folder.join(format!("{name}.rs"));
                    match named_path(&child.attrs) {
                        Some(path) => {
                            let path = file.parent().unwrap().join(path);
                            let folder = path.parent().unwrap().to_owned();
                            self.add_file(path, &folder, Some(id))
                        }
                        None if beside.exists() => self.add_file(beside, &below, Some(id)),
                        None => self.add_file(below.join("mod.rs"), &below, Some(id)),
                    }
                }
            };
            self.modules[id].children.insert(name, child);
        }
        self.modules[id].items = items;
        id
    }

    /// Notes in which module each method of a type is implemented.
    fn note_methods(&mut self) {
        let mut methods = HashMap::new();
        for (id, module) in self.modules.iter().enumerate() {
            for item in &module.items {
                let syn::Item::Impl(item) = item else { continue };
                let Some((of, name)) = self.implemented(id, item) else { continue };
                for method in item.items.iter().filter_map(method) {
                    methods.insert((of, name.clone(), method), id);
                }
            }
        }
        self.methods = methods;
    }

    /// The type that a module implements something for: the module that defines it, and its name.
    fn implemented(&self, module: Id, item: &syn::ItemImpl) -> Option<(Id, String)> {
        let syn::Type::Path(of) = item.self_ty.as_ref() else { return None };
        let path: Vec<_> = of.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        match self.resolve(module, &path)? {
            Target::Item(id) => Some((id, path.into_iter().next_back()?)),
            Target::Module(_) => None,
        }
    }

    /// What a path means in a module; `None` for what other crates define.
    fn resolve(&self, module: Id, path: &[String]) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(module),
            "super" => Target::Module(self.modules[module].parent?),
            name => self.lookup(module, name)?,
        };
        self.descend(start, rest)
    }

    fn descend(&self, start: Target, rest: &[String]) -> Option<Target> {
        let mut at = start;
        for name in rest {
            let Target::Module(module) = at else { break };
            at = match name.as_str() {
                "super" => Target::Module(self.modules[module].parent?),
                "self" => at,
                name => self.lookup(module, name)?,
            };
        }
        Some(at)
    }

    /// What a name means in a module.
    fn lookup(&self, module: Id, name: &str) -> Option<Target> {
        let here = &self.modules[module];
        if let Some(child) = here.children.get(name) {
            return Some(Target::Module(*child));
        }
        if here.own.contains(name) {
            return Some(Target::Item(module));
        }
        if !self.resolving.borrow_mut().insert((module, name.to_owned())) {
            return None;
        }
        let mut found = here
            .imports
            .iter()
            .find(|import| import.name.as_deref() == Some(name))
            .and_then(|import| self.resolve(module, &import.path));
        if found.is_none() {
            found = here.imports.iter().filter(|import| import.name.is_none()).find_map(|import| {
                match self.resolve(module, &import.path)? {
                    Target::Module(other) if other != module => self.lookup(other, name),
                    _ => None,
                }
            });
        }
        self.resolving.borrow_mut().remove(&(module, name.to_owned()));
        found
    }

    /// Which file uses which, with the first line that does.
    pub(super) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for id in 0..self.modules.len() {
            let module = &self.modules[id];
            for import in module.imports.iter().filter(|import| !import.re_exported) {
                if let Some(Target::Item(of)) = self.resolve(id, &import.path) {
                    self.note(&mut uses, id, of, import.line);
                }
            }
            let mut visitor = Paths { read: self, module: id, of: None, locals: Vec::new(), uses: &mut uses };
            for item in &module.items {
                visitor.of = match item {
                    syn::Item::Impl(item) => self.implemented(id, item),
                    _ => None,
                };
                if !matches!(item, syn::Item::Mod(_) | syn::Item::Use(_)) {
                    visitor.visit_item(item);
                }
            }
        }
        uses
    }

    fn note(&self, uses: &mut Uses, by: Id, of: Id, line: usize) {
        let (by, of) = (&self.modules[by].file, &self.modules[of].file);
        if by != of {
            let first = uses.entry((by.clone(), of.clone())).or_insert(line);
            *first = line.min(*first);
        }
    }
}

fn defined(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn method(item: &syn::ImplItem) -> Option<String> {
    match item {
        syn::ImplItem::Fn(method) if !only_for_tests(&method.attrs) => Some(method.sig.ident.to_string()),
        _ => None,
    }
}

/// Adds the names that a `use` declaration imports.
fn imports(tree: &syn::UseTree, before: &mut Vec<String>, re_exported: bool, into: &mut Vec<Import>) {
    let mut add = |name: Option<String>, last: Option<String>, span: Span| {
        let path = before.iter().cloned().chain(last).collect();
        into.push(Import { name, path, re_exported, line: line(span) });
    };
    match tree {
        syn::UseTree::Path(tree) => {
            before.push(tree.ident.to_string());
            imports(&tree.tree, before, re_exported, into);
            before.pop();
        }
        syn::UseTree::Name(leaf) if leaf.ident == "self" => add(before.last().cloned(), None, leaf.span()),
        syn::UseTree::Name(leaf) => add(Some(leaf.ident.to_string()), Some(leaf.ident.to_string()), leaf.span()),
        syn::UseTree::Rename(leaf) => add(Some(leaf.rename.to_string()), Some(leaf.ident.to_string()), leaf.span()),
        syn::UseTree::Glob(leaf) => add(None, None, leaf.span()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| imports(tree, before, re_exported, into)),
    }
}

/// Finds the paths in the items of a module.
struct Paths<'a> {
    read: &'a Crate,
    module: Id,
    /// The type that the item implements something for.
    of: Option<(Id, String)>,
    /// Names that functions import.
    locals: Vec<Import>,
    uses: &'a mut Uses,
}

impl Paths<'_> {
    fn path(&mut self, mut path: Vec<String>, line: usize) {
        if let Some(local) =
            self.locals.iter().find(|import| import.name.as_deref() == path.first().map(String::as_str))
        {
            path = local.path.iter().cloned().chain(path.into_iter().skip(1)).collect();
        }
        if let [first, method] = path.as_slice()
            && first == "Self"
        {
            return self.method(method, line);
        }
        let Some(Target::Item(of)) = self.read.resolve(self.module, &path) else { return };
        let implemented = match path.as_slice() {
            [.., name, method] => self.read.methods.get(&(of, name.clone(), method.clone())),
            _ => None,
        };
        self.read.note(self.uses, self.module, *implemented.unwrap_or(&of), line);
    }

    /// Notes the use of a method of the type that the item implements something for.
    fn method(&mut self, name: &str, line: usize) {
        let Some((of, type_name)) = self.of.clone() else { return };
        if let Some(by) = self.read.methods.get(&(of, type_name, name.to_owned())) {
            self.read.note(self.uses, self.module, *by, line);
        }
    }

    /// Finds paths and calls of methods in the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
        let mut at = 0;
        while at < tokens.len() {
            let start = at;
            at += 1;
            match &tokens[start] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while let (true, true, Some(TokenTree::Ident(next))) =
                        (colon(at), colon(at + 1), tokens.get(at + 2))
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    let after_dot =
                        start > 0 && matches!(&tokens[start - 1], TokenTree::Punct(mark) if mark.as_char() == '.');
                    let of_self = after_dot
                        && start > 1
                        && matches!(&tokens[start - 2], TokenTree::Ident(before) if before == "self");
                    if !after_dot {
                        self.path(path, line(first.span()));
                    } else if of_self && matches!(tokens.get(at), Some(TokenTree::Group(_))) {
                        self.method(&path[0], line(first.span()));
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), line(path.span()));
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if matches!(call.receiver.as_ref(), syn::Expr::Path(receiver) if receiver.path.is_ident("self")) {
            self.method(&call.method.to_string(), line(call.method.span()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        imports(&item.tree, &mut Vec::new(), true, &mut self.locals);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        if !only_for_tests(&method.attrs) {
            visit::visit_impl_item_fn(self, method);
        }
    }
}

/// One cycle for each use that is part of one: the shortest, as the files on it.
pub(super) fn cycles(uses: &Uses) -> Vec<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for (by, of) in uses.keys() {
        let Some(back) = shortest(uses, of, by) else { continue };
        let smallest = back.iter().enumerate().min_by_key(|(_, file)| *file).unwrap().0;
        let mut cycle = back;
        cycle.rotate_left(smallest);
        found.insert(cycle);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(Vec::len);
    found
}

/// The files on the shortest way from one to another.
fn shortest(uses: &Uses, from: &Path, to: &Path) -> Option<Vec<PathBuf>> {
    let mut before: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        if at == to {
            let mut way = vec![to.to_owned()];
            while way.last().unwrap() != from {
                way.push(before[way.last().unwrap().as_path()].to_owned());
            }
            way.reverse();
            return Some(way);
        }
        for (by, of) in uses.keys().filter(|(by, _)| by == at) {
            if of != from && !before.contains_key(of.as_path()) {
                before.insert(of, by);
                open.push_back(of);
            }
        }
    }
    None
}
