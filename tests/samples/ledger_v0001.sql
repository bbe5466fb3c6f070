-- Rows of the first ledger (migration 0001) as that version's code wrote them: a job in every state and place.
-- Written by taking jobs through that version; its tables come from its migration.
INSERT INTO "intake" VALUES('1.2.1','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-03-01 12:21:00.000000');
INSERT INTO "intake" VALUES('1.2.2','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-03-01 12:21:00.000000');
INSERT INTO "intake" VALUES('1.2.77','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-03-01 12:21:00.000000');
-- done
INSERT INTO "jobs" VALUES('e35e5e137e95bedae6307d214da40cf5','1.2.1','1.9','1.2.1.1','0000000000000000000000000000000000000000000000000000000000000001','done',1,0,'2026-03-01 12:01:00.000000','2026-03-01 12:02:30.000000','2026-03-01 12:02:30.000000',NULL,NULL,NULL,'','[["1.2.4", "thinner"]]',20,'2.25.1','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- rejected without a CT
INSERT INTO "jobs" VALUES('a3f9766b653f71d0397b749e600b77fe','1.2.2','1.9','','0000000000000000000000000000000000000000000000000000000000000002','rejected',1,0,'2026-03-01 12:03:30.000000','2026-03-01 12:03:30.000000','2026-03-01 12:03:30.000000','queued',NULL,NULL,'No series of the study can be translated: it holds no CT.','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- rejected by its CT
INSERT INTO "jobs" VALUES('f8d175a746c9c00b2027ea7c2630e670','1.2.3','1.9','1.2.3.1','0000000000000000000000000000000000000000000000000000000000000003','rejected',1,0,'2026-03-01 12:04:30.000000','2026-03-01 12:04:30.000000','2026-03-01 12:04:30.000000','queued',NULL,NULL,'The slice at z = 3 mm is missing.','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- rejected by the twin
INSERT INTO "jobs" VALUES('0477df0ca6c6aeb663989b840f2707d5','1.2.4','1.9','1.2.4.1','0000000000000000000000000000000000000000000000000000000000000004','rejected',1,0,'2026-03-01 12:05:30.000000','2026-03-01 12:06:30.000000','2026-03-01 12:06:30.000000','delivered',NULL,NULL,'The FHIR server refused the record (422).','[["1.2.4", "thinner"]]',20,'2.25.4','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- rejected by the PACS
INSERT INTO "jobs" VALUES('bd7dc73d23402d940d5c05339c17c3f3','1.2.5','1.9','1.2.5.1','0000000000000000000000000000000000000000000000000000000000000005','rejected',1,0,'2026-03-01 12:07:30.000000','2026-03-01 12:08:00.000000','2026-03-01 12:08:00.000000','rendered',NULL,NULL,'The PACS has no room.','[["1.2.4", "thinner"]]',20,'2.25.5','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- failed in its render
INSERT INTO "jobs" VALUES('adc48b830e23d2f707f112d9cef55d4d','1.2.6','1.9','1.2.6.1','0000000000000000000000000000000000000000000000000000000000000006','failed',1,0,'2026-03-01 12:09:00.000000','2026-03-01 12:09:00.000000','2026-03-01 12:09:00.000000','queued',NULL,NULL,'Unexpected KeyError: see the log.','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- failed at the PACS
INSERT INTO "jobs" VALUES('cf27d6f74d6f92697f39bf61d957378d','1.2.7','1.9','1.2.7.1','0000000000000000000000000000000000000000000000000000000000000007','failed',1,0,'2026-03-01 12:10:00.000000','2026-03-01 12:10:30.000000','2026-03-01 12:10:30.000000','rendered',NULL,NULL,'PACS at 10.0.0.1:104 cannot be reached.','[["1.2.4", "thinner"]]',20,'2.25.7','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- failed at the twin
INSERT INTO "jobs" VALUES('7e0617e9afe4705562d8e884e1246930','1.2.8','1.9','1.2.8.1','0000000000000000000000000000000000000000000000000000000000000008','failed',1,0,'2026-03-01 12:11:30.000000','2026-03-01 12:12:30.000000','2026-03-01 12:12:30.000000','delivered',NULL,NULL,'The FHIR server does not answer.','[["1.2.4", "thinner"]]',20,'2.25.8','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- superseded
INSERT INTO "jobs" VALUES('22743342de14b313f5842a094586474e','1.2.77','1.9','1.2.9.1','0000000000000000000000000000000000000000000000000000000000000009','superseded',1,0,'2026-03-01 12:13:30.000000','2026-03-01 12:14:30.000000','2026-03-01 12:14:30.000000',NULL,NULL,NULL,'More of the study arrived.','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- failed after it superseded
INSERT INTO "jobs" VALUES('915008d9e1132c095b065cb0f40e7c71','1.2.77','1.9','1.2.10.1','000000000000000000000000000000000000000000000000000000000000000a','failed',1,0,'2026-03-01 12:14:30.000000','2026-03-01 12:14:30.000000','2026-03-01 12:14:30.000000','queued',NULL,NULL,'x','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- rendered
INSERT INTO "jobs" VALUES('79a6e20f696b54c73a245b6b00ce9d0c','1.2.11','1.9','1.2.11.1','000000000000000000000000000000000000000000000000000000000000000b','rendered',1,1,'2026-03-01 12:15:30.000000','2026-03-01 12:16:00.000000','2026-03-02 12:16:00.000000',NULL,NULL,NULL,'PACS at 10.0.0.1:104 cannot be reached.','[["1.2.4", "thinner"]]',20,'2.25.11','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- delivered
INSERT INTO "jobs" VALUES('ee02f0d10fbfa88c902337da7b3b72ef','1.2.12','1.9','1.2.12.1','000000000000000000000000000000000000000000000000000000000000000c','delivered',1,1,'2026-03-01 12:17:00.000000','2026-03-01 12:18:00.000000','2026-03-02 12:18:00.000000',NULL,NULL,NULL,'The FHIR server does not answer.','[["1.2.4", "thinner"]]',20,'2.25.12','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
-- queued after a failure
INSERT INTO "jobs" VALUES('50c5ca450cc67bec91a6aafa8d617887','1.2.13','1.9','1.2.13.1','000000000000000000000000000000000000000000000000000000000000000d','queued',1,1,'2026-03-01 12:19:00.000000','2026-03-01 12:19:00.000000','2026-03-02 12:19:00.000000',NULL,NULL,NULL,'The worker process was lost; it is started again with the next try.','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- queued and leased
INSERT INTO "jobs" VALUES('86d527c8c847671c0f3a2912d2e4516d','1.2.14','1.9','1.2.14.1','000000000000000000000000000000000000000000000000000000000000000e','queued',1,0,'2026-03-01 12:20:00.000000','2026-03-01 12:20:00.000000','2026-03-01 12:20:00.000000',NULL,'scanner-1/worker-1','2026-03-01 12:23:00.000000','','[["1.2.4", "thinner"]]',20,NULL,NULL);
-- queued
INSERT INTO "jobs" VALUES('d89708f250be170be7738a45b6a730cf','1.2.15','1.9','1.2.15.1','000000000000000000000000000000000000000000000000000000000000000f','queued',1,0,'2026-03-01 12:21:00.000000','2026-03-01 12:21:00.000000','2026-03-01 12:21:00.000000',NULL,NULL,NULL,'','[["1.2.4", "thinner"]]',20,NULL,NULL);
