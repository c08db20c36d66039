-- Of a device's lock from before locks named a card, and whose evidence names none, both responders are suspects: each is
-- quarantined until the owner's word.
CREATE TABLE suspects (
    paillier_key BLOB NOT NULL,
    card         BLOB NOT NULL,
    PRIMARY KEY (paillier_key, card)
) STRICT, WITHOUT ROWID;
CREATE INDEX suspects_by_card ON suspects (card);
