# The only commands a newcomer needs: make run, make test, make check, make bench.

# The target that the sanitizer is built for.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: run install deb try-deb sanitize miri corpus test check bench retention

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

try-deb: deb ## install the package into a fresh Debian, let it record, purge it; needs root and debootstrap
	packaging/try-deb $$(ls -t target/debian/*.deb | head -n 1)

sanitize: ## the unsafe crate and live capture under the address sanitizer; needs a nightly toolchain with rust-src
	RUSTFLAGS=-Zsanitizer=address RUSTDOCFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1 CARGO_TARGET_DIR=target/asan \
	    cargo +nightly test -Zbuild-std --target $(HOST) -p afpacket --locked
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR=target/asan \
	    cargo +nightly test -Zbuild-std --target $(HOST) --test all --locked live::

miri: ## what of the unsafe crate makes no system calls; needs a nightly toolchain with miri
	cargo +nightly miri test -p afpacket --lib --locked

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
