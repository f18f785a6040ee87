ALTER TABLE turns ADD COLUMN network_bytes bigint NOT NULL DEFAULT 0;
