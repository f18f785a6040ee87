-- When a key ends by itself, if ever, and about when it was last used.
ALTER TABLE api_keys ADD COLUMN expires_at timestamptz, ADD COLUMN last_used_at timestamptz;
