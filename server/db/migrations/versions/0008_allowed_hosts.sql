ALTER TABLE sessions ADD COLUMN allowed_hosts text[] NOT NULL DEFAULT '{}';
GRANT UPDATE (allowed_hosts) ON sessions TO treadle_app;
