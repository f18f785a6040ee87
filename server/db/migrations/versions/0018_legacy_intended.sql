-- The archive that is being written, told before it is: a server that dies between the bucket and this table leaves it there, and it is known
-- for Treadle's own. Where nothing was agreed yet, `commit` is empty.
ALTER TABLE legacy_archives
  ADD COLUMN intended_sha256 text NOT NULL DEFAULT '',
  ADD COLUMN intended_commit text NOT NULL DEFAULT '';
