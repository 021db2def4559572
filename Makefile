# The only commands a newcomer needs: make run, make test, make check, make bench.

.PHONY: run install test check bench retention

run: ## build, and record until Ctrl-C: make run ARGS='-i eth0 -m 64M'
	@scripts/run $(ARGS)

install: built = $(or $(CARGO_TARGET_DIR),target)/release/retrocap
install: share = $(DESTDIR)$(or $(PREFIX),/usr/local)/share
install: ## the program, completions and manual pages into $(PREFIX), /usr/local by default
	scripts/setup build
	cargo build --release --locked
	install -D -m 755 $(or $(CARGO_TARGET_DIR),target)/release/retrocap $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/retrocap
	install -d $(share)/bash-completion/completions $(share)/zsh/site-functions $(share)/fish/vendor_completions.d
	$(built) completions bash > $(share)/bash-completion/completions/retrocap
	$(built) completions zsh > $(share)/zsh/site-functions/_retrocap
	$(built) completions fish > $(share)/fish/vendor_completions.d/retrocap.fish
	$(built) -q man $(share)/man/man1

test: ## every test that this machine can run; the others say why not
	scripts/setup test
	cargo test --workspace --locked

check: ## what a change must pass: format, lints, documentation, licences, advisories, tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
	scripts/check-dependencies
	$(MAKE) test

bench: ## instructions and times of the hot path
	cargo bench --workspace --locked

retention: ## how far back each policy reaches on the campus workload: make retention ARGS='--hours 24 --budget 64M'
	cargo bench --locked --bench retention -- $(ARGS)
