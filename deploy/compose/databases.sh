#!/bin/sh
# Runs once, when PostgreSQL's volume is empty: a user and a database for the ledger, and the same for the FHIR server.
set -eu
make_database() {
  psql --username=postgres --set=ON_ERROR_STOP=1 --set=name="$1" --set=password="$(cat "$2")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
}
make_database twin_scanner "$TWIN_SCANNER_PASSWORD_FILE"
make_database fhir "$FHIR_PASSWORD_FILE"
