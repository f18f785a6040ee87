GRANT DELETE ON model_uses TO treadle_system;
CREATE INDEX model_uses_by_age ON model_uses (created_at);
