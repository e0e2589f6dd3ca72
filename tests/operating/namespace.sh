# Run by tests/operating.rs as root in a mount and PID namespace of its own: DIRECTORY BINARIES COUNT.
set -eu
dir=$1 bin=$2 count=$3
mount --make-rprivate /
mkdir "$dir/etc" "$dir/bin"
# What looks users up and loads programs; no more of this machine's /etc.
for file in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives; do
  [ ! -e /etc/$file ] || cp -a /etc/$file "$dir/etc/"
done
mkdir -p "$dir/etc/nsecd"
cp "$dir/nsecd.toml" "$dir/etc/nsecd/nsecd.toml"
for name in nsecd nsecd-keyholder nsecd-gate nsecd-ecdh nsecd-broker nsecctl; do cp "$bin/$name" "$dir/bin/"; done
# A host's credentials key is bound to it.
tr -d - </proc/sys/kernel/random/uuid >"$dir/etc/machine-id"
mount --bind "$dir/etc" /etc
mount -t tmpfs -o mode=0755 none /run
mount -t tmpfs -o mode=0755 none /var/lib
mkdir -m 0755 /run/nostr /run/nsecd /var/lib/systemd 2>/dev/null || true
mount -t tmpfs -o mode=0700 none /root
mkdir -m 0700 /run/credentials /var/lib/nsecd
cp "$dir/nsec" /run/credentials/nsec
chmod 0400 /run/credentials/nsec

export PATH="$dir/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root
unset XDG_RUNTIME_DIR XDG_STATE_HOME NOTIFY_SOCKET CI 2>/dev/null || true
CREDENTIALS_DIRECTORY=/run/credentials nsecd --config /etc/nsecd/nsecd.toml >"$dir/nsecd.out" 2>"$dir/nsecd.err" &
nsecd=$!
# The banner is printed when every role is locked.
until grep -q 'is ready' "$dir/nsecd.out"; do
  kill -0 $nsecd || { cat "$dir/nsecd.err" >&2; exit 1; }
done
cd /root
n=0
while [ $n -lt "$count" ]; do
  sh "$dir/$n.command" >"$dir/$n.output" 2>&1 </dev/null || true
  n=$((n + 1))
done
kill $nsecd
wait $nsecd || true
