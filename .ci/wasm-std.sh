#!/usr/bin/env bash
# Builds the standard library for wasm32-unknown-unknown from Debian's rust-src and puts it into the sysroot of rustc.
# For machines where `rustup target add` cannot download it; ./dev install calls this only then.
#
# usage: .ci/wasm-std.sh [DIR]    DIR: where to put the libraries instead, to try this script out
#
# The system's apt is not touched: package lists and downloads live in a private folder, and the mirror is the one that
# the machine's own sources name.
set -euo pipefail

suite=trixie-backports
target=wasm32-unknown-unknown
rust=$(rustc --version | awk '{print $2}')
destination=${1:-$(rustc --print sysroot)/lib/rustlib/$target/lib}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The one file apt reads here: the mirror of the machine's first source, with another suite.
mirror=$(grep -rhoE --include='*.list' --include='*.sources' '^[^#]*https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list* |
    grep -oE 'https?://[^ ]+' | sort -u | sed -n 1p || true)
[ -n "$mirror" ] || { echo "wasm-std: found no Debian mirror under /etc/apt" >&2; exit 1; }
mkdir -p "$work"/{lists/partial,archives/partial,library,stub/src}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
private=(
    -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives"
    -o APT::Sandbox::User=root -o APT::Default-Release= -o Acquire::Languages=none
)
cd "$work"
apt-get "${private[@]}" update -qq
apt-get "${private[@]}" download -qq "rust-src=$rust*" ||
    { echo "wasm-std: $suite has no rust-src $rust; use that compiler or \`rustup target add $target\`" >&2; exit 1; }
dpkg-deb --fsys-tarfile rust-src_*.deb | tar -x -C library --wildcards --strip-components=5 './usr/src/rustc-*/library'

# Building an empty crate with -Zbuild-std leaves the libraries of std beside it.
printf '[package]\nname = "stub"\nedition = "2024"\n[workspace]\n' >stub/Cargo.toml
: >stub/src/lib.rs
cd stub
env -u CARGO_INCREMENTAL -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$work/target" RUSTC_BOOTSTRAP=1 \
    __CARGO_TESTS_ONLY_SRC_ROOT="$work/library" RUSTFLAGS=-Cembed-bitcode=yes \
    cargo build --quiet --release --target "$target" -Zbuild-std=std,panic_abort,test
# Whole or not at all: an interrupted copy must not look like an installed target.
rm -rf "$destination" "$destination.new"
mkdir -p "$destination.new"
find "$work/target/$target/release/deps" -name '*.rlib' ! -name 'libstub-*' -exec cp {} "$destination.new" \;
mv "$destination.new" "$destination"
