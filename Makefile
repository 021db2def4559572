# The only commands a newcomer needs: make run, make test, make check, make bench.

# The host's target triple, which the address sanitizer must be given explicitly.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: run build install uninstall deb try-deb sanitize seeds fuzz soak test check model bench retention

run: ## build, and record until Ctrl-C: make run ARGS='-i eth0 -m 64M'
	@scripts/run $(ARGS)

build: ## build the program, target/release/retrocap
	scripts/setup build
	cargo build --release --locked

install uninstall: built = $(or $(CARGO_TARGET_DIR),target)/release/retrocap
install uninstall: root = $(DESTDIR)$(or $(PREFIX),/usr/local)
install: ## install the program, completions and manual pages into $(PREFIX), /usr/local by default; run make build first
	@[ -x $(built) ] || { echo "$(built) is missing: run make build first, as a user who has Rust" >&2; exit 1; }
	install -D -s -m 755 $(built) $(root)/bin/retrocap
	install -d $(root)/share/bash-completion/completions $(root)/share/zsh/site-functions $(root)/share/fish/vendor_completions.d
	$(built) completions bash > $(root)/share/bash-completion/completions/retrocap
	$(built) completions zsh > $(root)/share/zsh/site-functions/_retrocap
	$(built) completions fish > $(root)/share/fish/vendor_completions.d/retrocap.fish
	$(built) -q man $(root)/share/man/man1

uninstall: ## remove what make install has installed; takes the same PREFIX
	rm -f $(root)/bin/retrocap $(root)/share/bash-completion/completions/retrocap $(root)/share/zsh/site-functions/_retrocap \
	    $(root)/share/fish/vendor_completions.d/retrocap.fish $(root)/share/man/man1/retrocap.1 $(root)/share/man/man1/retrocap-*.1

deb: build ## build a Debian package in target/debian; needs `cargo install cargo-deb`
	packaging/stage $(or $(CARGO_TARGET_DIR),target)/release/retrocap target/package
	cargo deb -p retrocap --no-build --locked --strip

try-deb: deb ## install the package into a fresh Debian, let it record, purge it; needs root and debootstrap
	packaging/try-deb $$(ls -t $(or $(CARGO_TARGET_DIR),target)/debian/*.deb | head -n 1)

sanitize: ## run the unsafe crate under Miri, and it and live capture under the address sanitizer; needs a nightly toolchain
	CARGO_TARGET_DIR=target/miri MIRIFLAGS=-Zmiri-disable-isolation \
	    cargo +nightly miri test --package sys --lib --locked
	RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
	    cargo +nightly test --target $(HOST) --package sys --lib --locked
	# Without the tests that measure memory or search it: the sanitizer needs much memory, and keeps freed memory for a while.
	RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan ASAN_OPTIONS=detect_leaks=0 \
	    cargo +nightly test --target $(HOST) --test all --locked -- live:: recorder::exactness recorder::following recorder::sandbox

seeds: ## write fuzz/seeds, from which `make fuzz` starts
	RETROCAP_WRITE_SEEDS=1 cargo test --locked --test all seeds

fuzz: ## run each fuzz target and add its processor time to fuzz/TIME.tsv: make fuzz SECONDS=3600; needs a nightly toolchain
	scripts/setup fuzz
	scripts/fuzz --seconds $(or $(SECONDS),60)

soak: build ## record mixed traffic for an hour, with queries, reloads and flapping interfaces: make soak SECONDS=300; needs root
	scripts/soak --seconds $(or $(SECONDS),3600) --program $(or $(CARGO_TARGET_DIR),target)/release/retrocap \
	    $(if $(RETROCAP_CAPTURES),--captures $(RETROCAP_CAPTURES))

test: ## run every test that this machine can run; the others print SKIPPED and why
	scripts/setup test
	cargo test --workspace --locked

model: ## the generation lock under a model checker, which tries every order in which threads can run
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),target)/loom cargo test --package base --test generation --locked

check: ## what every change must pass: format, lints, documentation, licences, advisories, tests
	scripts/setup check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
	scripts/check-dependencies
	$(MAKE) model
	$(MAKE) test

bench: ## measure the hot path beside its peers, in one table: make bench ARGS='ingest live' or ARGS=--long; live needs root
	scripts/setup bench || echo 'scripts/setup bench failed: what is missing is skipped below' >&2
	cargo bench --locked --bench table -- $(ARGS)

retention: ## measure how far back each policy reaches on the campus workload: make retention ARGS='--hours 24 --budget 64M'
	cargo bench --locked --bench retention -- $(ARGS)
