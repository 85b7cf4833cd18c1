-- Every poll asks for the newest mark of its node and when that manifest was issued; without this the whole envelope is read for it.
CREATE INDEX manifests_issued ON manifests (node, root, epoch, counter, created_at);
