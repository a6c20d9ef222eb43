-- Since when upstream has said that it does not have the tag any more; null while it has it.
ALTER TABLE tag ADD COLUMN missing_since INTEGER;
