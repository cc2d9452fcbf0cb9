//! What goes wrong with a real PostgreSQL, and what deployments left in it.

use pvc_host::{
    testing::postgres::PostgresProcess,
    zones::{ZoneDatabase, ZonesError},
};

use crate::contract::{database, guest, network, serve, with_password};

#[tokio::test]
async fn a_server_that_dies_is_an_answer_and_is_caught_up_with() {
    let mut server = PostgresProcess::start().unwrap();
    let database = database(&server);
    serve(&database, &[network()], &[guest("a", "10.100.0.7")]).await;
    server.kill();
    for _ in 0..2 {
        assert!(matches!(database.observe().await, Err(ZonesError::Failed { .. })));
    }
    server.launch().unwrap();
    serve(&database, &[network()], &[guest("b", "10.100.0.8")]).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = PostgresProcess::start().unwrap();
    let error = with_password(&server, "gu3sswork").observe().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    let told = format!("{error:?} {error} {cause:?} {cause} {:?}", cause.source());
    assert!(told.contains("password authentication failed"), "{told}");
    assert!(!told.contains("gu3sswork"), "{told}");
}

#[tokio::test]
async fn two_daemons_that_make_the_tables_at_once_do_not_hinder_each_other() {
    let server = PostgresProcess::start().unwrap();
    let (one, two) = (database(&server), database(&server));
    let (one, two) = tokio::join!(one.observe(), two.observe());
    assert!(one.unwrap().is_empty() && two.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_old_daemon_wrote_is_taken_over() {
    let server = PostgresProcess::start().unwrap();
    server
        .sql(
            "CREATE TABLE domains (id serial PRIMARY KEY, name varchar(255) NOT NULL, master varchar(128), last_check int,
               type text NOT NULL, notified_serial bigint, account varchar(40), options text, catalog text);
             CREATE UNIQUE INDEX name_index ON domains (name);
             CREATE TABLE records (id bigserial PRIMARY KEY, domain_id int REFERENCES domains ON DELETE CASCADE,
               name varchar(255), type varchar(10), content varchar(65535), ttl int, prio int, disabled bool DEFAULT 'f',
               ordername varchar(255), auth bool DEFAULT 't');
             INSERT INTO domains (name, type, account) VALUES ('web.local', 'MASTER', 'internal'), ('site.example', 'MASTER', NULL);
             INSERT INTO records (domain_id, name, type, content, ttl) VALUES
               (1, 'web.local', 'SOA', 'nsX.cluster root.cluster 7 10800 1800 86400 86400', 86400),
               (1, 'web.local', 'NS', 'pvc-ns1.cluster', 86400),
               (1, 'gone.web.local', 'A', '10.100.0.9', 86400),
               (1, 'web.local', 'MX', 'mail.web.local', 86400),
               (2, 'www.site.example', 'A', '192.0.2.1', 300);",
        )
        .unwrap();
    let database = database(&server);
    serve(&database, &[network()], &[guest("a", "10.100.0.7")]).await;
    let names = "SELECT string_agg(name || ' ' || type || ' ' || split_part(content, ' ', 3), ',' ORDER BY name, type) \
                 FROM records WHERE name IN ('web.local', 'gone.web.local', 'www.site.example')";
    assert_eq!(server.sql(names).unwrap(), "web.local MX ,web.local NS ,web.local SOA 8,www.site.example A");
}
