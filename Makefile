# The only commands a newcomer needs: make run, make test, make check, make bench.

.PHONY: run install deb test check bench retention

run: ## build, and record until Ctrl-C: make run ARGS='-i eth0 -m 64M'
	@scripts/run $(ARGS)

install: ## put the program into $(PREFIX)/bin, /usr/local by default
	scripts/setup build
	cargo build --release --locked
	install -D -m 755 $(or $(CARGO_TARGET_DIR),target)/release/retrocap $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/retrocap

deb: ## a Debian package in target/debian; it needs `cargo install cargo-deb`
	scripts/setup build
	cargo build --release --locked
	packaging/stage $(or $(CARGO_TARGET_DIR),target)/release/retrocap target/package
	cargo deb --no-build --locked

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
