package io.usagelakehouse;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import org.apache.spark.sql.connector.catalog.FunctionCatalog;
import org.apache.spark.sql.connector.catalog.Identifier;
import org.apache.spark.sql.connector.catalog.functions.BoundFunction;
import org.apache.spark.sql.connector.catalog.functions.UnboundFunction;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/**
 * The SQL functions `events.parse(binary)`, `events.time(binary)` and `events.instant(string)`.
 *
 * Registered by `spark.sql.catalog.events`. Options: `fields`, the union of all schema versions' fields as Spark DDL;
 * `schemas`, JSON with what each version asks of all these fields, cut to what the lake holds; `max-bytes`, the largest value that is read.
 */
public final class EventFunctions implements FunctionCatalog {
  private String name;
  private ParseEvent parse;

  @Override
  public void initialize(String catalogName, CaseInsensitiveStringMap options) {
    name = catalogName;
    try {
      parse =
          new ParseEvent(
              StructType.fromDDL(options.get("fields")),
              new ObjectMapper().readTree(options.get("schemas")),
              options.getInt("max-bytes", Integer.MAX_VALUE));
    } catch (IOException error) {
      throw new IllegalArgumentException("Option `schemas` of catalog " + catalogName + " is no JSON.", error);
    }
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public String[] defaultNamespace() {
    return new String[] {};
  }

  @Override
  public Identifier[] listFunctions(String[] namespace) {
    return new Identifier[] {
      Identifier.of(new String[] {}, "parse"), Identifier.of(new String[] {}, "time"), Identifier.of(new String[] {}, "instant")
    };
  }

  @Override
  public UnboundFunction loadFunction(Identifier ident) {
    switch (ident.name()) {
      case "parse":
        return unbound("parse", parse, DataTypes.BinaryType);
      case "time":
        return unbound("time", new EventTime(parse.instants()), DataTypes.BinaryType);
      case "instant":
        return unbound("instant", new InstantOf(), DataTypes.StringType);
      default:
        throw new IllegalArgumentException("No function " + ident + " in catalog " + name + "; it has parse, time and instant.");
    }
  }

  private static UnboundFunction unbound(String name, BoundFunction function, DataType argument) {
    return new UnboundFunction() {
      @Override
      public BoundFunction bind(StructType input) {
        if (input.size() != 1 || !input.fields()[0].dataType().equals(argument)) {
          throw new UnsupportedOperationException(name + " takes one argument of type " + argument.sql() + ", found " + input.sql());
        }
        return function;
      }

      @Override
      public String description() {
        return name + "(" + argument.sql() + ")";
      }

      @Override
      public String name() {
        return name;
      }
    };
  }
}
