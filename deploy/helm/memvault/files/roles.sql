-- Roles and databases of the PostgreSQL that the chart runs for trying it out; psql runs this once, on an empty volume.
\set ON_ERROR_STOP on
\getenv owner_password OWNER_PASSWORD
\getenv app_password APP_PASSWORD
\getenv keys_password KEYS_PASSWORD
SET password_encryption = 'scram-sha-256';
CREATE ROLE memvault_owner LOGIN PASSWORD :'owner_password' NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE ROLE memvault_app LOGIN PASSWORD :'app_password' NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE ROLE memvault_keys LOGIN PASSWORD :'keys_password' NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE DATABASE memvault OWNER memvault_owner;
CREATE DATABASE memvault_keys OWNER memvault_keys;
REVOKE ALL ON DATABASE memvault, memvault_keys, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE memvault TO memvault_app;
