//! What PostgreSQL 15 and its clients said to each other.

use super::super::Direction;

/// `psql`, with errors and copies.
pub const PSQL: &[(Direction, &[u8])] = &[
    (Direction::Request, b"\0\0\0\x08\x04\xd2\x16/"),
    (Direction::Response, b"N"),
    (Direction::Request, b"\0\0\0?\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0psql\0\0"),
    (Direction::Response, b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1aapplication_name\0psql\0S\0\0\0\x19client_encoding\0UTF8\0S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0&default_transaction_read_only\0off\0S\0\0\0\x17in_hot_standby\0off\0S\0\0\0\x19integer_datetimes\0on\0S\0\0\0\x1bIntervalStyle\0postgres\0S\0\0\0\x14is_superuser\0on\0S\0\0\0\x19server_encoding\0UTF8\0S\0\0\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\0S\0\0\0#session_authorization\0postgres\0S\0\0\0#standard_conforming_strings\0on\0S\0\0\0\x15TimeZone\0Etc/UTC\0K\0\0\0\x0c\0\0U{d\x1b\xb4\x0eZ\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\x008CREATE TABLE orders(id int primary key, name text);\0"),
    (Direction::Response, b"C\0\0\0\x11CREATE TABLE\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0\x0bBEGIN;\0"),
    (Direction::Response, b"C\0\0\0\nBEGIN\0Z\0\0\0\x05T"),
    (Direction::Request, b"Q\0\0\0/INSERT INTO orders VALUES (1,'a'),(2,'b');\0"),
    (Direction::Response, b"C\0\0\0\x0fINSERT 0 2\0Z\0\0\0\x05T"),
    (Direction::Request, b"Q\0\0\0\x0cCOMMIT;\0"),
    (Direction::Response, b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0+SELECT * FROM orders WHERE name = 'a';\0"),
    (Direction::Response, b"T\0\0\x002\0\x02id\0\0\0@\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0name\0\0\0@\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x10\0\x02\0\0\0\x011\0\0\0\x01aC\0\0\0\rSELECT 1\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0\x15SELECT nonsense;\0"),
    (Direction::Response, b"E\0\0\0kSERROR\0VERROR\0C42703\0Mcolumn \"nonsense\" does not exist\0P8\0Fparse_relation.c\0L3665\0RerrorMissingColumn\0\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0&SELECT 1; SELECT 'x'; SELECT 1/0;\0"),
    (Direction::Response, b"T\0\0\0!\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\rSELECT 1\0T\0\0\0!\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x01xC\0\0\0\rSELECT 1\0E\0\0\0ASERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L869\0Rint4div\0\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0\x1cCOPY orders FROM STDIN;\0"),
    (Direction::Response, b"G\0\0\0\x0b\0\0\x02\0\0\0\0"),
    (Direction::Request, b"d\0\0\0\x0f3\tc\n4\td\n\\.\nc\0\0\0\x04"),
    (Direction::Response, b"C\0\0\0\x0bCOPY 2\0Z\0\0\0\x05I"),
    (Direction::Request, b"Q\0\0\0\x1bCOPY orders TO STDOUT;\0"),
    (Direction::Response, b"H\0\0\0\x0b\0\0\x02\0\0\0\0d\0\0\0\x081\ta\nd\0\0\0\x082\tb\nd\0\0\0\x083\tc\nd\0\0\0\x084\td\nc\0\0\0\x04C\0\0\0\x0bCOPY 4\0Z\0\0\0\x05I"),
    (Direction::Request, b"X\0\0\0\x04"),
];

/// `pgbench -M prepared`, with a pipeline.
pub const PGBENCH: &[(Direction, &[u8])] = &[
    (Direction::Request, b"\0\0\0\x08\x04\xd2\x16/"),
    (Direction::Response, b"N"),
    (Direction::Request, b"\0\0\0B\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0pgbench\0\0"),
    (Direction::Response, b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1dapplication_name\0pgbench\0S\0\0\0\x19client_encoding\0UTF8\0S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0&default_transaction_read_only\0off\0S\0\0\0\x17in_hot_standby\0off\0S\0\0\0\x19integer_datetimes\0on\0S\0\0\0\x1bIntervalStyle\0postgres\0S\0\0\0\x14is_superuser\0on\0S\0\0\0\x19server_encoding\0UTF8\0S\0\0\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\0S\0\0\0#session_authorization\0postgres\0S\0\0\0#standard_conforming_strings\0on\0S\0\0\0\x15TimeZone\0Etc/UTC\0K\0\0\0\x0c\0\0U\x81A\x13\xef9Z\0\0\0\x05I"),
    (Direction::Request, b"P\0\0\x000P_0\0SELECT name FROM orders WHERE id = 1;\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"1\0\0\0\x04Z\0\0\0\x05I"),
    (Direction::Request, b"P\0\0\x005P_1\0UPDATE orders SET name = 'z' WHERE id = 2;\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"1\0\0\0\x04Z\0\0\0\x05I"),
    (Direction::Request, b"P\0\0\0'P_2\0SELECT count(*) FROM orders;\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"1\0\0\0\x04Z\0\0\0\x05I"),
    (Direction::Request, b"B\0\0\0\x11\0P_0\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0B\0\0\0\x11\0P_1\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0B\0\0\0\x11\0P_2\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"2\0\0\0\x04T\0\0\0\x1d\0\x01name\0\0\0@\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x01aC\0\0\0\rSELECT 1\x002\0\0\0\x04n\0\0\0\x04C\0\0\0\rUPDATE 1\x002\0\0\0\x04T\0\0\0\x1e\0\x01count\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x014C\0\0\0\rSELECT 1\0Z\0\0\0\x05I"),
    (Direction::Request, b"P\0\0\0+P_3\0DELETE FROM orders WHERE id = 4;\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"1\0\0\0\x04Z\0\0\0\x05I"),
    (Direction::Request, b"B\0\0\0\x11\0P_3\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"2\0\0\0\x04n\0\0\0\x04C\0\0\0\rDELETE 1\0Z\0\0\0\x05I"),
    (Direction::Request, b"B\0\0\0\x11\0P_0\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0B\0\0\0\x11\0P_1\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0B\0\0\0\x11\0P_2\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"2\0\0\0\x04T\0\0\0\x1d\0\x01name\0\0\0@\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x01aC\0\0\0\rSELECT 1\x002\0\0\0\x04n\0\0\0\x04C\0\0\0\rUPDATE 1\x002\0\0\0\x04T\0\0\0\x1e\0\x01count\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x013C\0\0\0\rSELECT 1\0Z\0\0\0\x05I"),
    (Direction::Request, b"B\0\0\0\x11\0P_3\0\0\0\0\0\0\x01\0\0D\0\0\0\x06P\0E\0\0\0\t\0\0\0\0\0S\0\0\0\x04"),
    (Direction::Response, b"2\0\0\0\x04n\0\0\0\x04C\0\0\0\rDELETE 0\0Z\0\0\0\x05I"),
    (Direction::Request, b"X\0\0\0\x04"),
];
