-- Lines of an import that wait for the end of its list, because another user still has the username.
ALTER TABLE imports ADD COLUMN deferred bigint[] NOT NULL DEFAULT '{}';
