#!/bin/sh
# Writes random passwords as files into secrets/ beside this script; a password that is there already stays.
# Run it as root: each file is given to the one user who reads it in its container.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in postgresql-password twin-scanner-password fhir-password; do
  test -s "secrets/$name" || random > "secrets/$name"
done
test -s secrets/orthanc-users.json ||
  printf '{ "AuthenticationEnabled": true, "RegisteredUsers": { "admin": "%s" } }\n' "$(random)" > secrets/orthanc-users.json
# The same passwords, as those who log in read them.
printf '*:*:*:twin_scanner:%s\n' "$(cat secrets/twin-scanner-password)" > secrets/pgpass
cp secrets/fhir-password secrets/fhir-datasource-password
if test "$(id -u)" -eq 0; then
  chown 999:999 secrets/postgresql-password secrets/twin-scanner-password secrets/fhir-password
  chown 10001:10001 secrets/pgpass
  chown 65532:65532 secrets/fhir-datasource-password
fi
