-- The roles of Naka, for an administrator to create if the migrating role may not (no CREATEROLE). Once per cluster:
--   psql --set=login=naka_service --set=password=... --file=deploy/postgres/roles.sql
-- `login` is the application's (DATABASE_URL). The role of DATABASE_MIGRATION_URL, which owns the schema, exists already.
CREATE ROLE naka_app NOLOGIN;
CREATE ROLE naka_tenant NOLOGIN;
CREATE ROLE naka_read NOLOGIN;
GRANT naka_tenant TO naka_app;
CREATE ROLE :"login" LOGIN PASSWORD :'password';
GRANT naka_app TO :"login";
