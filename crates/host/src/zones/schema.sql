-- What PowerDNS 4.7 and later asks for, made where it is missing.
CREATE TABLE IF NOT EXISTS domains (
  id serial PRIMARY KEY,
  name varchar(255) NOT NULL CHECK (name = lower(name)),
  master varchar(128),
  last_check int,
  type text NOT NULL,
  notified_serial bigint,
  account varchar(40),
  options text,
  catalog text
);
CREATE UNIQUE INDEX IF NOT EXISTS name_index ON domains (name);
CREATE INDEX IF NOT EXISTS catalog_idx ON domains (catalog);

CREATE TABLE IF NOT EXISTS records (
  id bigserial PRIMARY KEY,
  domain_id int REFERENCES domains ON DELETE CASCADE,
  name varchar(255) CHECK (name = lower(name)),
  type varchar(10),
  content varchar(65535),
  ttl int,
  prio int,
  disabled boolean DEFAULT false,
  ordername varchar(255),
  auth boolean DEFAULT true
);
CREATE INDEX IF NOT EXISTS nametype_index ON records (name, type);
CREATE INDEX IF NOT EXISTS domain_id ON records (domain_id);
CREATE INDEX IF NOT EXISTS recordorder ON records (domain_id, ordername text_pattern_ops);

CREATE TABLE IF NOT EXISTS supermasters (
  ip inet NOT NULL,
  nameserver varchar(255) NOT NULL,
  account varchar(40) NOT NULL,
  PRIMARY KEY (ip, nameserver)
);

CREATE TABLE IF NOT EXISTS comments (
  id serial PRIMARY KEY,
  domain_id int NOT NULL REFERENCES domains ON DELETE CASCADE,
  name varchar(255) NOT NULL CHECK (name = lower(name)),
  type varchar(10) NOT NULL,
  modified_at int NOT NULL,
  account varchar(40),
  comment varchar(65535) NOT NULL
);
CREATE INDEX IF NOT EXISTS comments_name_type_idx ON comments (name, type);
CREATE INDEX IF NOT EXISTS comments_order_idx ON comments (domain_id, modified_at);

CREATE TABLE IF NOT EXISTS domainmetadata (
  id serial PRIMARY KEY,
  domain_id int REFERENCES domains ON DELETE CASCADE,
  kind varchar(32),
  content text
);
CREATE INDEX IF NOT EXISTS domainidmetaindex ON domainmetadata (domain_id);

CREATE TABLE IF NOT EXISTS cryptokeys (
  id serial PRIMARY KEY,
  domain_id int REFERENCES domains ON DELETE CASCADE,
  flags int NOT NULL,
  active boolean,
  published boolean DEFAULT true,
  content text
);
CREATE INDEX IF NOT EXISTS domainidindex ON cryptokeys (domain_id);

CREATE TABLE IF NOT EXISTS tsigkeys (
  id serial PRIMARY KEY,
  name varchar(255) CHECK (name = lower(name)),
  algorithm varchar(50),
  secret varchar(255)
);
CREATE UNIQUE INDEX IF NOT EXISTS namealgoindex ON tsigkeys (name, algorithm);

-- Ours: which records this program wrote. A row goes with its record.
CREATE TABLE pvc_records (
  record bigint PRIMARY KEY REFERENCES records ON DELETE CASCADE
);

-- The daemon of the 0.5 generation had no such mark: it took every address and name of its zones for its own.
INSERT INTO pvc_records
  SELECT records.id FROM records JOIN domains ON domains.id = records.domain_id
  WHERE domains.account = 'internal' AND records.type IN ('A', 'AAAA', 'PTR', 'NS');
