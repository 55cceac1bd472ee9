#!/usr/bin/env bash
# Makes ./secrets: certificates, tokens, keys that seal what is on disk, and passwords of Redis. Overwrites nothing.
#
# The program runs in the image, which is built if need be; FLOTILLA=/path/to/flotilla runs that one instead.
set -euo pipefail
cd "$(dirname "$0")"
workers=(worker-1 worker-2 worker-3)

if [[ -e secrets ]]; then
	echo "secrets is there already; remove it to make everything anew" >&2
	exit 1
fi
# Of it only the directories that containers mount may be read by others, for the users in there are others; nobody
# outside comes through this one.
umask 077
mkdir secrets

flotilla() {
	if [[ -n ${FLOTILLA:-} ]]; then
		"$FLOTILLA" "$@"
	else
		docker run --rm --network none --user "$(id -u):$(id -g)" --volume "$PWD:/here" --workdir /here flotilla:local \
			flotilla "$@"
	fi >/dev/null
}
[[ -n ${FLOTILLA:-} ]] || docker compose build control

# Keep the keys of the two authorities, ca.key, elsewhere: whoever has them can be anybody.
flotilla init tls secrets/authority --host control
flotilla init tls secrets/redis-authority --host redis
flotilla init tokens secrets/tokens "${workers[@]/#/--worker=}"

# put DIRECTORY NAME [FILE]: what a container finds as /run/secrets/NAME; without FILE, standard input.
put() {
	mkdir -p "secrets/$1"
	cat "${@:3}" >"secrets/$1/$2"
	chmod 755 "secrets/$1"
	chmod 644 "secrets/$1/$2"
}

writer=$(openssl rand -hex 32) reader=$(openssl rand -hex 32)
hash() { printf %s "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

put control control.pem secrets/authority/control.pem
put control control.key secrets/authority/control.key
put control tokens.toml secrets/tokens/tokens.toml
put control workers.toml secrets/tokens/workers.toml
put control redis-url <<<"rediss://redis?user=flotilla&pass=$writer&tls-ca=/run/secrets/redis-ca.pem"
openssl rand -hex 32 | put control encryption.key
put control ca.pem secrets/authority/ca.pem
put control viewer.token secrets/tokens/viewer.token

for worker in "${workers[@]}"; do
	put "$worker" ca.pem secrets/authority/ca.pem
	put "$worker" redis-ca.pem secrets/redis-authority/ca.pem
	put "$worker" worker.token "secrets/tokens/worker-$worker.token"
	openssl rand -hex 32 | put "$worker" encryption.key
done

put cli ca.pem secrets/authority/ca.pem
put cli admin.token secrets/tokens/admin.token

put redis redis.pem secrets/redis-authority/control.pem
put redis redis.key secrets/redis-authority/control.key
# The writer's commands are those of the workers, on keys of the prefixes that begin so. Readers read.
put redis users.acl <<EOT
user default off
user flotilla on #$(hash "$writer") resetchannels ~ld:* -@all +@connection -@dangerous +info +role +config|get +script|load +evalsha +get +set +exists +expire +persist +pttl +rename +type +unlink +hdel +hget +hlen +hscan +hset
user reader on #$(hash "$reader") resetchannels ~ld:* -@all +@connection +@read -@dangerous -scan -randomkey -dbsize
EOT
put reader password <<<"$reader"
put reader redis-ca.pem secrets/redis-authority/ca.pem

echo "wrote $PWD/secrets"
